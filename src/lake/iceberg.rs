use super::*;
pub(super) async fn ensure(_: &Table, _: &TableSpec, _: Writer) -> Result<Ensured, LakeError> {
    unimplemented!()
}
pub(super) async fn state(_: &Table) -> Result<TableState, LakeError> {
    unimplemented!()
}
pub(super) async fn file_set(_: &Table, _: Option<Version>) -> Result<FileSet, LakeError> {
    unimplemented!()
}
pub(super) async fn stage_plan(_: &Table, _: &CommitMeta) -> Result<StagePlan, LakeError> {
    unimplemented!()
}
pub(super) async fn publish(
    _: &Table,
    _: &Staged,
    _: &PublishMode,
    _: &CommitMeta,
) -> Result<Published, LakeError> {
    unimplemented!()
}
pub(super) async fn referenced(_: &Table) -> Result<std::collections::BTreeSet<String>, LakeError> {
    unimplemented!()
}
pub(super) async fn commits(_: &Table, _: usize) -> Result<Vec<(Version, CommitMeta)>, LakeError> {
    unimplemented!()
}
pub(super) async fn last_checkpoint(_: &Table, _: &str) -> Result<Option<serde_json::Value>, LakeError> {
    unimplemented!()
}

//! Files of another table, taken over.

use super::*;
use crate::lake::observe::key_of;

/// A table with two days, and another of the same shape with nothing.
struct Two {
    folders: (TempDir, TempDir),
    theirs: Table,
    version: Version,
    ours: Table,
}

const DAYS: [&str; 2] = ["2026-08-01", "2026-08-02"];

fn replace(day: &str) -> PublishMode {
    PublishMode::ReplacePartition(day.to_owned())
}

async fn fill(table: &Table, keys: [&str; 2], tag: i64) -> Version {
    let mut version = Version(0);
    for (at, (key, day)) in (0..).zip(keys.into_iter().zip(DAYS)) {
        let rows = vec![wide_rows(DAY_ONE + at, 40, tag + i64::from(at))];
        version =
            put(table, rows, replace(day), &CommitMeta::new(key, 1, NOON)).await.expect("published").version;
    }
    version
}

async fn two(format: TableFormat) -> Two {
    let (theirs_in, theirs) = new_table(format, &by_day()).await;
    let (ours_in, ours) = new_table(format, &by_day()).await;
    let version = fill(&theirs, ["a", "b"], 1).await;
    Two { folders: (theirs_in, ours_in), theirs, version, ours }
}

fn digest_of(key: &str) -> String {
    CommitMeta::new(key, 1, NOON).key_digest()
}

impl Two {
    async fn part(&self, key: &str, day: &str) -> Shown {
        let shown = self.theirs.shown(self.version).await.expect("shown");
        shown.part(Some(day), &digest_of(key), 40).expect("a part")
    }

    /// Returns the files of a day, whole paths.
    async fn files(&self, table: &Table, day: &str) -> Vec<PathBuf> {
        let set = table.file_set(None).await.expect("files");
        let of = set.files.iter().filter(|file| file.partition.as_deref() == Some(day));
        of.map(|file| set.dir.join(&file.path)).collect()
    }
}

/// Returns every data file below a folder, finished or not.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("a kind").is_dir() {
            if !matches!(name.as_str(), "_delta_log" | "metadata") {
                found.extend(data_files(&entry.path()));
            }
        } else if name.ends_with(".parquet") || name.ends_with(".tmp") {
            found.push(entry.path());
        }
    }
    found
}

pub(super) async fn what_is_taken_over_is_published_as_if_it_were_computed(format: TableFormat) {
    let two = two(format).await;
    let before = data_files(two.folders.0.path()).len();
    for (key, day) in ["a", "b"].into_iter().zip(DAYS) {
        let part = two.part(key, day).await;
        let meta = CommitMeta::new(format!("ours {key}"), 7, NOON);
        let staged = two.ours.take_over(&meta, &part).await.expect("taken over");
        assert_eq!(staged.rows, 40);
        // The audit sees the rows before anybody else does.
        let provider = two.ours.staged_provider(&staged);
        let session = SessionContext::new();
        let rows = session.read_table(provider).expect("read").count().await.expect("counted");
        assert_eq!(rows, 40);
        let again = two.ours.take_over(&meta, &part).await.expect("the same again");
        let names = |staged: &Staged| staged.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&again), names(&staged), "after a crash the same files are there");
        assert!(again.files.iter().all(|file| !file.fresh));
        let published = two.ours.publish(staged, replace(day), &meta).await.expect("published");
        assert_eq!(published.outcome, Outcome::Committed);
        let known = known(&two.ours).await;
        assert_eq!(known.last_commit.as_ref().map(|meta| meta.writer_epoch), Some(7), "by its own epoch");
        for file in two.files(&two.ours, day).await {
            assert_eq!(key_of(file.to_str().expect("UTF-8")), Some(meta.key_digest().as_str()));
        }
        let twice = two.ours.take_over(&meta, &part).await.expect("taken over");
        let twice = two.ours.publish(twice, replace(day), &meta).await.expect("known");
        assert_eq!(twice, Published { outcome: Outcome::AlreadyCommitted, ..published });
    }
    let hash = two.ours.content_hash(None, &[]).await.expect("hashed");
    assert_eq!(hash, two.theirs.content_hash(None, &[]).await.expect("hashed"));
    let stale = CommitMeta::new("late", 6, NOON);
    let staged = two.ours.take_over(&stale, &two.part("a", DAYS[0]).await).await.expect("taken over");
    let refused = two.ours.publish(staged, replace(DAYS[0]), &stale).await;
    assert!(matches!(refused, Err(LakeError::Fenced { offered: 6, current: 7 })), "{refused:?}");

    // The other table stays what it was, and once it is gone nothing is missing here.
    assert_eq!(data_files(two.folders.0.path()).len(), before);
    for file in data_files(two.folders.0.path()) {
        std::fs::write(file, "somebody wrote over it").expect("written");
    }
    drop(two.folders.0);
    assert_eq!(two.ours.content_hash(None, &[]).await.expect("hashed"), hash);
}

pub(super) async fn what_is_torn_cut_or_not_ours_is_not_taken_over(format: TableFormat) {
    type Harm<'a> = &'a dyn Fn(&Path, &[u8]);
    let flip = |path: &Path, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("written");
    };
    let harms: [(Harm<'_>, &str); 4] = [
        (&|path, bytes| std::fs::write(path, &bytes[..bytes.len() / 2]).expect("written"), "bytes long"),
        (&flip, "does not hold what its name says"),
        (&|path, bytes| std::fs::write(path, vec![0; bytes.len()]).expect("written"), "does not hold"),
        (&|path, _| std::fs::remove_file(path).expect("removed"), "could not look at"),
    ];
    let two = two(format).await;
    let meta = CommitMeta::new("ours", 7, NOON);
    let part = two.part("a", DAYS[0]).await;
    let path = two.files(&two.theirs, DAYS[0]).await.remove(0);
    let bytes = std::fs::read(&path).expect("read");
    for (harm, why) in harms {
        harm(&path, &bytes);
        let error = two.ours.take_over(&meta, &part).await.expect_err("harmed");
        assert!(crate::text::chain(&error).contains(why), "{error} is not: {why}");
        assert_eq!(data_files(two.folders.1.path()), Vec::<PathBuf>::new(), "nothing is left of it: {why}");
        std::fs::write(&path, &bytes).expect("written");
    }
    two.ours.take_over(&meta, &part).await.expect("whole again");
}

pub(super) async fn only_the_publication_that_is_meant_is_taken_over(format: TableFormat) {
    let two = two(format).await;
    let shown = two.theirs.shown(two.version).await.expect("shown");
    let (key, other) = (digest_of("a"), digest_of("b"));
    assert!(shown.part(Some(DAYS[0]), &key, 40).is_some());
    assert!(shown.part(Some(DAYS[0]), &other, 40).is_none(), "the commit of another key made it");
    assert!(shown.part(Some(DAYS[0]), &key, 41).is_none(), "it has other rows than were published");
    assert!(shown.part(Some("2026-08-03"), &key, 0).is_none(), "there is no such partition");
    assert!(shown.part(None, &key, 80).is_none(), "two commits made the whole");
    assert!(matches!(two.theirs.shown(Version(900)).await, Err(LakeError::UnknownVersion { .. })));
}

pub(super) async fn rows_are_the_same_if_their_files_are(format: TableFormat) {
    let two = two(format).await;
    let first = two.theirs.shown(two.version).await.expect("shown");
    let of = |from: usize, to: usize| vec![(DAYS[from].to_owned(), DAYS[to].to_owned())];
    // One day is published anew with other rows.
    let rows = vec![wide_rows(DAY_ONE + 1, 40, 9)];
    let moved = put(&two.theirs, rows, replace(DAYS[1]), &CommitMeta::new("c", 1, NOON)).await;
    let moved = two.theirs.shown(moved.expect("published").version).await.expect("shown");
    assert!(moved.shows_as(&first, Some(&of(0, 0))), "that day is what it was");
    assert!(!moved.shows_as(&first, Some(&of(1, 1))) && !moved.shows_as(&first, Some(&of(0, 1))));
    assert!(!moved.shows_as(&first, None), "and the whole is not");
    assert!(moved.shows_as(&first, Some(&[])), "of nothing nothing differs");
    // And with the rows that it had, by another commit.
    let rows = vec![wide_rows(DAY_ONE + 1, 40, 2)];
    let back = put(&two.theirs, rows, replace(DAYS[1]), &CommitMeta::new("d", 2, NOON)).await;
    let back = two.theirs.shown(back.expect("published").version).await.expect("shown");
    assert!(back.shows_as(&first, None), "the same content, whoever committed it");
    // A day that one of them lacks.
    let rows = vec![wide_rows(DAY_ONE, 40, 1)];
    let one = put(&two.ours, rows, replace(DAYS[0]), &CommitMeta::new("a", 1, NOON)).await;
    let one = two.ours.shown(one.expect("published").version).await.expect("shown");
    assert!(one.shows_as(&first, Some(&of(0, 0))) && first.shows_as(&one, Some(&of(0, 0))), "another table");
    assert!(!one.shows_as(&first, Some(&of(0, 1))) && !first.shows_as(&one, Some(&of(0, 1))));
    // A column more, which a query may read.
    let mut fields: Vec<Arc<Field>> = wide_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("more", DataType::Int64, true)));
    let wider = TableSpec { schema: Arc::new(Schema::new(fields)), ..by_day() };
    two.ours.ensure(&wider, writer(1)).await.expect("widened");
    let TableState::Known(now) = two.ours.state().await.expect("known") else { panic!("it is there") };
    let now = two.ours.shown(now.version).await.expect("shown");
    assert!(!now.shows_as(&one, None), "its columns are others");
}

pub(super) async fn files_are_taken_where_they_would_have_been_written_alike(format: TableFormat) {
    let two = two(format).await;
    let part = two.part("a", DAYS[0]).await;
    let meta = CommitMeta::new("ours", 7, NOON);
    let table = async |edit: &dyn Fn(&mut Vec<Arc<Field>>)| {
        let mut fields: Vec<Arc<Field>> = wide_schema().fields().iter().cloned().collect();
        edit(&mut fields);
        let spec = TableSpec { schema: Arc::new(Schema::new(fields)), ..by_day() };
        let (folder, table) = new_table(format, &spec).await;
        let taken = table.take_over(&meta, &part).await;
        drop(folder);
        taken.map_err(|error| crate::text::chain(&error))
    };
    // A column at the end that the other table has not yet has no values, as in every file from before it came.
    let more = |required: bool| Arc::new(Field::new("more", DataType::Int64, !required));
    assert!(table(&|fields| fields.push(more(false))).await.is_ok());
    let lacks = table(&|fields| fields.push(more(true))).await.unwrap_err();
    assert!(lacks.contains("lacks column more"), "{lacks}");
    let unknown = table(&|fields| _ = fields.pop()).await.unwrap_err();
    assert!(unknown.contains("has a column vector"), "{unknown}");
    let other = |fields: &mut Vec<Arc<Field>>| {
        let at = fields.iter().position(|field| field.name() == "paid").expect("there");
        fields[at] = Arc::new(Field::new("paid", DataType::Int64, true));
    };
    let otherwise = table(&other).await.unwrap_err();
    assert!(otherwise.contains("stores column paid otherwise"), "{otherwise}");
    let uncut = TableSpec { partition_by: None, ..by_day() };
    let (_folder, uncut) = new_table(format, &uncut).await;
    let error = uncut.take_over(&meta, &part).await.unwrap_err();
    assert!(matches!(error, LakeError::Untaken { .. }), "{error}");
    // Iceberg finds columns by numbers, which depend on the order in which they came.
    let moved = table(&|fields| fields.swap(2, 3)).await;
    match format {
        TableFormat::Delta => assert!(moved.is_ok(), "{moved:?}"),
        TableFormat::Iceberg => assert!(moved.unwrap_err().contains("otherwise")),
    }
}

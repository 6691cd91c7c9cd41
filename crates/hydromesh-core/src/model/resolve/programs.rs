//! Programs of a product's folder: they are there, and may run somewhere.

use super::Resolver;
use crate::diag::{Diagnostic, Spot, codes};
use crate::model::{Contract, Environment, Product, QualityCheck};

impl Resolver<'_> {
    /// A rule's program is there, and may run somewhere.
    pub(super) fn programs(&mut self, contract: &Contract) {
        for rule in &contract.quality {
            let QualityCheck::Command(program) = &rule.check else { continue };
            let at = Spot::new(rule.line, 0);
            let folder = format!("{}/", self.draft.folder);
            if let Some(path) = program.in_folder()
                && !self.draft.files.contains_key(&format!("{folder}{path}"))
            {
                let message = format!("the quality rule `{}` runs {path}, which is not in {folder}", rule.id);
                let known = self.draft.files.keys().filter_map(|it| it.strip_prefix(&folder));
                let diagnostic = Diagnostic::new(codes::NO_PROGRAM, contract.file.clone(), at, message);
                self.tell(diagnostic.suggest(path, known));
            }
            if !self.somewhere(|environment| environment.allow_commands.contains(&self.draft.id.domain)) {
                let message = format!(
                    "the quality rule `{}` is a command, and no environment allows those of {}",
                    rule.id, self.draft.id.domain
                );
                let diagnostic = Diagnostic::new(codes::COMMAND_NOWHERE, contract.file.clone(), at, message);
                self.tell(diagnostic);
            }
        }
    }

    /// A trainer's program is among what it is shown, may run somewhere, and has the network there if it asks for it.
    pub(super) fn trainers(&mut self, product: &Product) {
        let (file, domain) = (self.draft.pipeline_file.clone(), &self.draft.id.domain);
        let files = product.trainer_files();
        for (training, trainer) in product.trainers() {
            let mut raws = self.draft.pipelines.iter();
            let raw = raws.find(|raw| raw.pipeline.as_ref().is_some_and(|it| *it.name() == training.name));
            let at = |label| raw.and_then(|raw| raw.spots.get(label)).copied().unwrap_or_default();
            if let Some(path) = trainer.program.in_folder()
                && !files.contains_key(path)
            {
                let folder = &self.draft.folder;
                let why = if self.draft.files.contains_key(&format!("{folder}/{path}")) {
                    "which Hydromesh reads itself and shows to no trainer".to_owned()
                } else {
                    format!("which is not in {folder}/")
                };
                let message = format!("the trainer of `{}` runs {path}, {why}", training.name);
                let diagnostic = Diagnostic::new(codes::NO_TRAINER_FILE, file.clone(), at("train"), message);
                self.tell(diagnostic.suggest(path, files.keys().copied()));
            }
            if !self.somewhere(|environment| environment.allow_commands.contains(domain)) {
                let message = format!(
                    "the trainer of `{}` is a command, and no environment allows those of {domain}",
                    training.name
                );
                self.tell(Diagnostic::new(codes::TRAINER_NOWHERE, file.clone(), at("train"), message));
            } else if trainer.network
                && !self.somewhere(|environment| {
                    environment.allow_commands.contains(domain) && environment.allow_network.contains(domain)
                })
            {
                let message = format!(
                    "the trainer of `{}` asks for the network, and no environment that allows commands of {domain} grants it",
                    training.name
                );
                let at = at("train.network");
                self.tell(Diagnostic::new(codes::NETWORK_NOWHERE, file.clone(), at, message));
            }
        }
    }

    fn somewhere(&self, allows: impl Fn(&Environment) -> bool) -> bool {
        self.mesh.environments.values().any(allows)
    }
}

//! Small meshes of products that are cut by values, and a controller that does what is to be done.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Ran, Repo, hydromesh, run, text};

/// The reader of files beside it.
pub const RAW: &str = "{name: raw, customProperties: [{property: hydromesh.files, value: '*.csv'}]}";

pub struct Mesh {
    _home: tempfile::TempDir,
    pub repo: Repo,
    pub state: PathBuf,
    policies: PathBuf,
}

/// Returns a contract of a text column and an amount.
pub fn contract(name: &str, by: &str) -> String {
    format!(
        "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n  - {{name: {by}, logicalType: string, classification: public}}\n  - {{name: amount, logicalType: integer}}\n"
    )
}

/// Returns a batch pipeline; `more` are further lines.
pub fn pipeline(output: &str, sql: &str, more: &str) -> String {
    format!("apiVersion: hydromesh/v1\nkind: BatchPipeline\noutput: {output}\nsql: {sql}\n{more}")
}

/// Returns a product of one input and one output.
pub fn product(input: &str, output: &str) -> String {
    format!(
        "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n- {input}\noutputPorts:\n- {{name: {output}}}\n"
    )
}

impl Mesh {
    /// Makes a repository of one domain, `shop`, with these files.
    pub fn of(files: &[(&str, String)]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("repo");
        let mesh =
            "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: refs/heads/main}}\n";
        let domain = "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n";
        let around = [("mesh.yaml", mesh), ("domains/shop/domain.yaml", domain)];
        let files = files.iter().map(|(file, content)| (*file, content.as_str()));
        for (file, content) in around.into_iter().chain(files) {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let repo = Repo::around(&folder);
        let (state, policies) = (home.path().join("state"), home.path().join("policies"));
        std::fs::create_dir(&policies).expect("a folder");
        let rule = "# METADATA\n# title: Names\npackage hydromesh.deploy.names\n\n\
                    deny contains {\"rule\": \"no-secrets\", \"msg\": \"nothing secret here\", \"remediation\": \"call it otherwise\"} if {\n\
                    \tinput.product.name == \"secret\"\n}\n";
        std::fs::write(policies.join("names.rego"), rule).expect("written");
        Self { _home: home, repo, state, policies }
    }

    pub fn ask(&self, args: &[&str]) -> Ran {
        run(&[args, &["--state", text(&self.state)]].concat())
    }

    /// Returns a controller that ends when nothing is to be done.
    pub fn up(&self) -> Command {
        let mut up = hydromesh();
        up.args(["up", "--once", "--listen", "127.0.0.1:0", "--state", text(&self.state)]);
        up.args(["--repo", text(&self.repo.folder), "--policies", text(&self.policies)]);
        up
    }

    /// Lets a controller do what is to be done.
    #[track_caller]
    pub fn once(&self) {
        let ended = self.up().output().expect("it starts");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    /// Rows of a table as lines.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.ask(&["query", sql, "--format", "json"]).ends_with(0).json();
        rows.as_array().expect("rows").iter().map(ToString::to_string).collect()
    }

    /// How many runs of a product have ended.
    pub fn runs(&self, product: &str) -> u64 {
        let runs = self.ask(&["runs", product, "--format", "json"]).ends_with(0).json();
        runs["ended_in_all"].as_u64().expect("a number")
    }
}

//! Quality rules that are programs of the repository, from the commit to what is published.

use super::SALES;
use super::mesh::{self, Files, SALES_SQL};
use super::previews::{apply, file};
use super::world::{State, World};

const RULE: &str = "          - {id: sale-id-once, metric: duplicateValues, mustBe: 0, severity: error}\n";
const PROGRAM: &str = "          - {id: no-price-below, type: custom, engine: command, \
                       implementation: {command: [checks/below.sh, '0'], rows: csv}, mustBe: 0, severity: error}\n";

/// Counts the prices below a number.
const BELOW: &str = "#!/bin/sh\necho \"looking at $HYDROMESH_PORT $HYDROMESH_PARTITION\"\n\
                     awk -F, -v least=\"$1\" 'NR > 1 && $4 < least {n++} END {print n + 0}' \"$HYDROMESH_ROWS\"\n";

fn with_program(program: &str) -> Files {
    let files = mesh::files(mesh::today(), "10d");
    let path = "domains/shop/sales/sales.odcs.yaml";
    let text = String::from_utf8(files[path].clone().expect("text")).expect("UTF-8");
    assert!(text.contains(RULE));
    let contract = text.replace(RULE, &format!("{RULE}{PROGRAM}"));
    let program = ("domains/shop/sales/checks/below.sh".to_owned(), Some(program.as_bytes().to_vec()));
    [(path.to_owned(), Some(contract.into_bytes())), program].into()
}

#[test]
fn a_program_of_the_repository_says_what_may_be_published_where_it_may_run() {
    let world = World::new("10d");
    world.commit("Let a program look at prices", &with_program(BELOW));
    let mut state = world.state("programs");
    // Nobody has allowed it: it is told before, and nothing is published.
    let repository = world.repository();
    crate::support::run(&["check", crate::support::text(&repository), "--rev", "main"]).says("HM-C017");
    state.start();
    let failed = state.wait("a failed audit", |state| {
        let runs = state.json(&["runs", "shop/sales", "--failed"])?["runs"].to_string();
        if runs.contains("HM-Q001") { Ok(runs) } else { Err(runs) }
    });
    assert!(failed.contains("does not allow commands of the domain shop"), "{failed}");
    assert!(state.table(SALES).1 == 0);
    assert!(state.end().0.success(), "{}", state.told());

    world.set("ref: refs/heads/main", "ref: refs/heads/main\n    allow_commands: [shop]");
    state.start();
    // What failed is tried again when somebody asks, as after any audit that failed.
    state.wait("a controller", State::is_ready);
    state.ask(&["retry", "shop/sales"]).ends_with(0);
    state.settle();
    let rows = mesh::DAYS * mesh::SALES_A_DAY;
    assert_eq!(state.table(SALES).1, rows);
    let quality = state.json(&["quality", "shop/sales"]).expect("quality").to_string();
    assert!(quality.contains("no-price-below"), "{quality}");

    // A program that finds something keeps what was published; one that fails is kept away from people's mail with what it said.
    let version = state.table(SALES).0;
    let closer = BELOW.replace("$1", "9");
    world.commit("Look more closely", &with_program(&closer));
    state.settle();
    let day = (mesh::today() - chrono::Days::new(2)).to_string();
    state
        .ask(&["backfill", "shop/sales", "--from", &day, "--to", &day, "--reason", "look again"])
        .ends_with(0);
    let failed = |says: &'static str| {
        move |state: &State<'_>| {
            let runs = state.json(&["runs", "shop/sales", "--failed"])?["runs"].to_string();
            if runs.contains(says) { Ok(runs) } else { Err(runs) }
        }
    };
    state.wait("a failed audit", failed("measured"));
    // A deploy has it tried again.
    let torn = "#!/bin/sh\nhead -2 \"$HYDROMESH_ROWS\" >&2\nexit 3\n";
    world.commit("Fail", &with_program(torn));
    let told = state.wait("another failed audit", failed("ended with exit code 3"));
    assert!(!told.contains(",CH,"), "no row is in what is told: {told}");
    assert_eq!(state.table(SALES).0, version);
    // Policies see the command and every file beside it.
    let rule = "# METADATA\n# title: Programs\npackage mesh.programs\n\ndeny contains {\n\t\"rule\": \"no-programs\",\n\t\"msg\": \
                sprintf(\"%s runs %s\", [command.rule, command.command[0]]),\n\t\"path\": \"product.commands\",\n} if {\n\t\
                some command in input.product.commands\n\tinput.product.files[\"domains/shop/sales/checks/below.sh\"]\n}\n";
    let judging = [("policies/programs.rego".to_owned(), Some(rule.as_bytes().to_vec()))].into();
    let judged = world.commit("Judge programs", &judging);
    state.outcome(&judged);
    let denied = world.commit("Change it once more", &with_program(BELOW));
    let outcome = state.outcome(&denied);
    assert_ne!(outcome, "applied");
    state.ask(&["why-not", "shop/sales"]).says("no-price-below runs checks/below.sh");
    let complaint = state.folder().join("complaints/shop/sales.sales.no-price-below.txt");
    assert!(std::fs::read_to_string(complaint).expect("kept").contains(",CH,"));
    let left = std::fs::read_dir(state.folder().join("scratch")).expect("there").count();
    assert_eq!(left, 0, "nothing is left of what ran");
}

#[test]
fn a_branch_lets_no_program_run_in_its_preview_that_the_parent_does_not() {
    let world = World::new("10d");
    let mut state = world.state("parent");
    state.start();
    state.settle();
    assert!(state.end().0.success(), "{}", state.told());
    let allow = |files: &mut Files| {
        let mesh = String::from_utf8(mesh::files(mesh::today(), "10d")["mesh.yaml"].clone().expect("text"));
        let mesh = mesh.expect("UTF-8");
        let allowed =
            mesh.replace("ref: refs/heads/main", "ref: refs/heads/main\n    allow_commands: [shop]");
        assert_ne!(mesh, allowed);
        files.insert("mesh.yaml".to_owned(), Some(allowed.into_bytes()));
    };
    // What is computed is looked at; a rule alone computes nothing.
    let program = || {
        let mut files = with_program(BELOW);
        files.extend(file("domains/shop/sales/sales.sql", &format!("{SALES_SQL}WHERE price >= 0\n")));
        files
    };
    let mut files = program();
    allow(&mut files);
    world.branch("north", None, "Let a program run, and say that it may", &files);
    let refused = apply(&world, &state, "north", &["--parent", "dev"]);
    refused.ends_with(1).says("does not allow commands of the domain shop");

    // Once the parent has decided that it may, it runs.
    let mut alone = Files::new();
    allow(&mut alone);
    let allowed = world.commit("Allow the shop's programs", &alone);
    state.start();
    assert_eq!(state.outcome(&allowed), "applied");
    assert!(state.end().0.success(), "{}", state.told());
    world.branch("south", None, "Let a program run", &program());
    apply(&world, &state, "south", &["--parent", "dev"]).ends_with(0);
}

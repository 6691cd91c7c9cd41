//! A controller that deploys only what is signed.

use std::path::Path;
use std::process::Command;

use super::mesh;
use super::world::World;
use crate::support::text;

fn ssh_keygen(folder: &Path, args: &[&str]) {
    let ran = Command::new("ssh-keygen").args(args).current_dir(folder).output().expect("started");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn an_unsigned_push_is_not_deployed_and_the_signed_one_after_it_is() {
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        println!("skipped, because ssh-keygen is not installed");
        return;
    }
    let world = World::new("7d");
    let (keys, signers) = (world.folder("keys"), world.folder("signers"));
    ssh_keygen(&keys, &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "mara"]);
    let public = std::fs::read_to_string(keys.join("mara.pub")).expect("a key");
    std::fs::write(signers.join("allowed_signers"), format!("mara@example.com {public}")).expect("written");
    let rules = format!(
        "apiVersion: hydromesh/v1\nkind: Signers\nsince: {}\n\
         rules:\n  - {{paths: 'domains/shop/**', signers: mara@example.com}}\n",
        world.head()
    );
    std::fs::write(signers.join("signers.yaml"), rules).expect("written");
    let sign = |payload: &str| {
        std::fs::write(keys.join("payload"), payload).expect("written");
        let _ = std::fs::remove_file(keys.join("payload.sig"));
        ssh_keygen(&keys, &["-q", "-Y", "sign", "-n", "git", "-f", "mara", "payload"]);
        std::fs::read_to_string(keys.join("payload.sig")).expect("a signature")
    };
    let mut state = world.state("signed").with(&["--poll", "0.5", "--signers", text(&signers)]);
    state.start();
    state.settle();

    let unsigned = world.commit("Sneak in", &mesh::reader("extra"));
    assert_eq!(state.outcome(&unsigned), "held");
    let why = state.ask(&["why-not", "shop/extra"]).ends_with(0).stdout;
    assert!(why.contains("HM-R004") && why.contains("is not signed"), "{why}");
    assert_eq!(state.table("shop/extra.extra").1, 0);
    // A signature on top of it makes nothing better, and holds nobody else up.
    let other = world.commit_signed("Go on", &mesh::reader("other"), sign);
    assert_eq!(state.outcome(&other), "held");
    state.wait("the other product", |state| match state.table("shop/other.other").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    assert_eq!(state.table("shop/extra.extra").1, 0);

    // Neither does a start: what was refused is in the ledger.
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    state.start();
    let vouched = format!("Take responsibility\n\nVouches-for: {unsigned}\n");
    let vouched = world.commit_signed(&vouched, &mesh::Files::new(), sign);
    assert_eq!(state.outcome(&vouched), "applied");
    state.wait("the product", |state| match state.table("shop/extra.extra").1 {
        0 => Err("no rows".to_owned()),
        rows => Ok(rows),
    });
    state.settle();
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

//! A controller that is told of a push does not wait for its poll, in one process and in two, and says what became of it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::Value;

use super::mesh;
use super::world::{PATIENCE, State, World};
use crate::support::text;

const SECRET: &str = "shared-with-the-forge";
const PUSH: &str = r#"{"ref": "refs/heads/main"}"#;
/// Longer than the test: whatever is seen was seen for a webhook, or at the start.
const POLL: &str = "3600";

/// Posts a webhook as GitHub does.
fn push(state: &State<'_>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hex::encode(hmac::sign(&key, PUSH.as_bytes()));
    let headers = format!("X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={signature}\r\n");
    state.post("/webhooks/github", &headers, PUSH)
}

/// A forge that accepts every status and passes on path and body.
fn forge() -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (send, statuses) = mpsc::channel();
    let serving = move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut request = Vec::new();
            let body = loop {
                let mut part = [0; 4096];
                let read = connection.read(&mut part).expect("a request");
                request.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&request);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str::<Value>(body));
                if let Some(Ok(body)) = body {
                    break body;
                }
                assert!(read > 0, "{text}");
            };
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).expect("a path").to_owned();
            let created = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            connection.write_all(created.as_bytes()).expect("answered");
            if send.send((path, body)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("forge".to_owned()).spawn(serving).expect("a thread");
    (format!("github=http://{address}/repos/larch/mesh"), statuses)
}

#[test]
fn a_push_is_looked_at_when_its_webhook_comes_and_its_outcome_is_told() {
    let home = tempfile::tempdir().expect("a folder");
    let (secret, token) = (home.path().join("secret"), home.path().join("token"));
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    std::fs::write(&token, "s3cret-of-the-forge\n").expect("written");
    let world = World::new("7d");
    for (name, roles, beside) in
        [("together", "control,work,stream,serve", None), ("apart", "control,work,stream", Some("serve"))]
    {
        let (address, statuses) = forge();
        let mut state = world.state(name).with(&[
            "--poll",
            POLL,
            "--webhook-secret-file",
            text(&secret),
            "--commit-status",
            &address,
            "--commit-status-token-file",
            text(&token),
        ]);
        state.start_as(roles);
        state.settle();
        if let Some(role) = beside {
            state.start_beside(role);
        }
        state.wait("a server", |state| {
            std::net::TcpStream::connect(state.listen()).map(drop).map_err(|error| error.to_string())
        });
        let (path, first) = statuses.recv_timeout(PATIENCE).expect("a status of the first commit");
        assert_eq!(
            (&first["state"], &first["context"]),
            (&"success".into(), &"hydromesh/dev".into()),
            "{path}"
        );

        // Nobody tells, nobody looks.
        let commit = world.commit(&format!("Deny, {name}"), &mesh::reader("secret"));
        std::thread::sleep(Duration::from_secs(1));
        assert_ne!(state.json(&["status"]).expect("a status")["commit"]["commit"], commit);
        let began = Instant::now();
        let answer = push(&state);
        assert!(answer.starts_with("HTTP/1.1 202") && answer.ends_with(r#"{"accepted":true}"#), "{answer}");
        let denied = state.outcome(&commit);
        println!("{name}: {denied} {} ms after the webhook", began.elapsed().as_millis());
        assert_eq!(denied, "denied");
        let (path, status) = statuses.recv_timeout(PATIENCE).expect("a status of the second commit");
        assert_eq!(path, format!("/repos/larch/mesh/statuses/{commit}"));
        assert_eq!(status["state"], "failure");
        assert!(status["description"].as_str().expect("a text").contains("nothing secret here"), "{status}");

        let (status, _) = state.end();
        assert_eq!(status.code(), Some(0), "{}", state.told());
        if let Some(role) = beside {
            assert_eq!(state.end_beside(role).code(), Some(0), "{}", state.told());
        }
        let told = state.told();
        assert!(!told.contains(SECRET) && !told.contains("s3cret-of-the-forge"), "{told}");
        // Back to what is allowed, for the next round.
        world.commit("Take it back", &mesh::reader("secret").into_keys().map(|path| (path, None)).collect());
    }
}

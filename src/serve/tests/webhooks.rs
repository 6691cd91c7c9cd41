//! Webhooks as forges send them, and as others do.

use std::sync::atomic::AtomicUsize;

use futures::StreamExt as _;
use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const SECRET: &str = "shared-with-the-forge";
const PUSH: &str =
    r#"{"ref": "refs/heads/main", "after": "c0ffee", "repository": {"full_name": "larch/mesh"}}"#;

/// Serves with webhooks, and counts the hints.
async fn hooked() -> (Served, Arc<AtomicUsize>) {
    let hints = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hints);
    let hint = move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let webhooks = Webhooks::new(WebhookSecret::new(SECRET).unwrap(), "refs/heads/main".into(), hint);
    // As on an address of the network, where everything else needs the token.
    let guard = check_bind("0.0.0.0:80".parse().unwrap(), Some(TOKEN)).unwrap();
    let (served, _) = served_with(Story::new(), guard, Some(webhooks)).await;
    (served, hints)
}

fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// Sends a body with headers; a header given twice replaces the first.
async fn send(served: &Served, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut request = served.client.post(format!("{}{path}", served.base)).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Sends a body as GitHub does, signed.
async fn github(served: &Served, event: &str, body: &[u8]) -> (u16, Value) {
    let signed = signature(SECRET, body);
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", &signed),
    ];
    send(served, "/webhooks/github", &headers, body).await
}

/// Sends a body as GitLab does, with the secret.
async fn gitlab(served: &Served, event: &str, body: &[u8]) -> (u16, Value) {
    let headers =
        [("content-type", "application/json"), ("x-gitlab-event", event), ("x-gitlab-token", SECRET)];
    send(served, "/webhooks/gitlab", &headers, body).await
}

#[test]
fn signatures_are_those_that_github_documents() {
    let documented = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signature("It's a Secret to Everybody", b"Hello, World!"), documented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_of_the_watched_reference_are_hints() {
    let (served, hints) = hooked().await;
    let yes = (202, json!({ "accepted": true }));
    assert_eq!(github(&served, "push", PUSH.as_bytes()).await, yes);
    // The same delivery again, by whoever recorded it: one more look, nothing else.
    assert_eq!(github(&served, "push", PUSH.as_bytes()).await, yes);
    for event in ["Push Hook", "Tag Push Hook", "System Hook"] {
        assert_eq!(gitlab(&served, event, PUSH.as_bytes()).await, yes, "{event}");
    }
    assert_eq!(hints.load(Ordering::SeqCst), 5);
    // What is signed and not clear counts as well: another repository with our secret, other shapes, no JSON at all.
    let deep = format!(r#"{{"commits": {}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    for unclear in [
        r#"{"ref": "refs/heads/main", "repository": {"full_name": "else/where"}}"#,
        r#"{"push": {"changes": [{"new": {"name": "main", "type": "branch"}}]}}"#,
        r#"{"ref": "main", "ref_type": "branch"}"#,
        "{\"ref\": \"refs/heads/main\"",
        "",
        &deep,
    ] {
        assert_eq!(github(&served, "push", unclear.as_bytes()).await, yes, "{unclear:.80}");
    }
    assert_eq!(hints.load(Ordering::SeqCst), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_events_and_other_references_are_left_alone() {
    let (served, hints) = hooked().await;
    let topic = br#"{"ref": "refs/heads/topic"}"#;
    for (answer, why) in [
        (github(&served, "push", topic).await, "refs/heads/topic"),
        (gitlab(&served, "Push Hook", topic).await, "refs/heads/topic"),
        (github(&served, "issues", PUSH.as_bytes()).await, "not a push"),
        (gitlab(&served, "Merge Request Hook", PUSH.as_bytes()).await, "not a push"),
    ] {
        let (status, body) = answer;
        assert_eq!((status, &body["accepted"]), (202, &json!(false)), "{body}");
        assert!(body["why"].as_str().unwrap().contains(why), "{body}");
    }
    let (status, body) = github(&served, "ping", br#"{"zen": "Keep it logically awesome."}"#).await;
    assert_eq!((status, &body["accepted"]), (200, &json!(false)), "{body}");
    assert_eq!(hints.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_know_the_secret_is_refused() {
    let (served, hints) = hooked().await;
    let body = PUSH.as_bytes();
    let good = signature(SECRET, body);
    let other = signature("another-secret-of-somebody", body);
    let other_body = signature(SECRET, b"{}");
    // The right signature by SHA-1: the hash is broken, and forges send the other one beside it.
    let old = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let old = format!("sha1={}", hex::encode(hmac::sign(&old, body)));
    let bare = good.trim_start_matches("sha256=");
    for headers in [
        vec![],
        vec![("authorization", "Bearer correct-horse-battery")],
        vec![("x-hub-signature-256", "")],
        vec![("x-hub-signature-256", "sha256=")],
        vec![("x-hub-signature-256", &good[..good.len() - 2])],
        vec![("x-hub-signature-256", &good[..good.len() - 1])],
        vec![("x-hub-signature-256", bare)],
        vec![("x-hub-signature-256", other.as_str())],
        vec![("x-hub-signature-256", other_body.as_str())],
        vec![("x-hub-signature", old.as_str())],
        vec![("x-hub-signature-256", old.as_str())],
        // Bitbucket, Gogs and GitLab sign otherwise.
        vec![("x-event-key", "repo:push"), ("x-hub-signature", good.as_str())],
        vec![("x-gogs-event", "push"), ("x-gogs-signature", bare)],
        vec![("x-gitlab-event", "Push Hook"), ("x-gitlab-token", SECRET)],
    ] {
        let headers = [vec![("content-type", "application/json")], headers].concat();
        let (status, answer) = send(&served, "/webhooks/github", &headers, body).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("HM-H018")), "{headers:?}");
    }
    for token in ["", "shared-with-the-forgf", "shared-with-the-forge2", "shared-with-the", TOKEN] {
        let headers = [("content-type", "application/json"), ("x-gitlab-token", token)];
        let (status, answer) = send(&served, "/webhooks/gitlab", &headers, body).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("HM-H018")), "{token}");
    }
    let signed = [("content-type", "application/json"), ("x-hub-signature-256", good.as_str())];
    assert_eq!(send(&served, "/webhooks/gitlab", &signed, body).await.0, 403, "that is GitHub's");
    assert_eq!(hints.load(Ordering::SeqCst), 0);
    // The secret opens nothing else, and the routes nothing but themselves.
    let status = |path: &str| served.client.get(format!("{}{path}", served.base)).bearer_auth(SECRET).send();
    for path in ["/v1/status", "/webhooks/github/", "/webhooks/bitbucket", "/webhooks/"] {
        assert_eq!(status(path).await.unwrap().status(), 401, "{path}");
    }
    assert_eq!(status("/webhooks/github").await.unwrap().status(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_told_to_be_json() {
    let (served, hints) = hooked().await;
    let body = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D";
    let signed = signature(SECRET, body);
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""] {
        let headers = [("content-type", kind), ("x-github-event", "ping"), ("x-hub-signature-256", &signed)];
        let (status, answer) = send(&served, "/webhooks/github", &headers, body).await;
        assert_eq!((status, answer["code"].as_str()), (415, Some("HM-H019")), "{answer}");
        assert!(answer["help"].as_str().unwrap().contains("application/json"), "{answer}");
    }
    let headers = [("content-type", "Application/JSON; charset=utf-8"), ("x-hub-signature-256", &signed)];
    assert_eq!(send(&served, "/webhooks/github", &headers, body).await.0, 202);
    assert_eq!(hints.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_refused_before_they_are_read() {
    let (served, hints) = hooked().await;
    let body = vec![b' '; 1024 * 1024];
    assert_eq!(github(&served, "push", &body).await.0, 202, "as large as it may be");
    let (status, answer) = github(&served, "push", &[&body[..], b" "].concat()).await;
    assert_eq!((status, answer["code"].as_str()), (413, Some("HM-H008")), "{answer}");
    // Of 50 MB nothing is sent before the answer comes; the second says no length at all.
    let unsaid = format!("transfer-encoding: chunked\r\n\r\n100001\r\n{}\r\n", " ".repeat(0x10_0001));
    for rest in ["content-length: 50000000\r\n\r\n".to_owned(), unsaid] {
        let mut socket =
            tokio::net::TcpStream::connect(served.base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /webhooks/github HTTP/1.1\r\nhost: mesh.example\r\ncontent-type: application/json\r\n\
             x-hub-signature-256: sha256={}\r\n{rest}",
            "00".repeat(32)
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut answer)).await;
        let read = read.expect("an answer before the body ends").unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(hints.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_trickle_are_given_up_and_keep_no_place() {
    let (served, hints) = hooked().await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut socket =
            tokio::net::TcpStream::connect(served.base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /webhooks/github HTTP/1.1\r\nhost: mesh.example\r\ncontent-length: 100\r\n\
             x-hub-signature-256: sha256={}\r\n\r\n{{",
            "00".repeat(32)
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    let mut answer = [0; 64];
    let read = tokio::time::timeout(Duration::from_secs(20), slow[0].read(&mut answer)).await;
    let read = read.expect("it is given up").unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&answer));
    // Their clients still hold their connections; who comes now is answered.
    assert_eq!(github(&served, "push", PUSH.as_bytes()).await.0, 202);
    assert_eq!(hints.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_answered_and_leaves_nothing_behind() {
    const SENT: usize = 4_000;
    let (served, hints) = hooked().await;
    let flood = futures::stream::iter(0..SENT).map(|_| github(&served, "push", PUSH.as_bytes()));
    let answers: Vec<(u16, Value)> = flood.buffer_unordered(64).collect().await;
    assert!(answers.iter().all(|(status, _)| *status == 202));
    assert_eq!((answers.len(), hints.load(Ordering::SeqCst)), (SENT, SENT));
    // Others were answered meanwhile and still are.
    assert_eq!(served.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_nobody_takes_webhooks() {
    let (served, _commands) = served(Story::new()).await;
    for answer in
        [github(&served, "push", PUSH.as_bytes()).await, gitlab(&served, "Push Hook", PUSH.as_bytes()).await]
    {
        let (status, body) = answer;
        assert_eq!((status, body["code"].as_str()), (404, Some("HM-H017")), "{body}");
        assert!(body["help"].as_str().unwrap().contains("--webhook-secret-file"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_that_cannot_be_passed_on_is_said() {
    let full = || Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    let webhooks = Webhooks::new(WebhookSecret::new(SECRET).unwrap(), "refs/heads/main".into(), full);
    let guard = check_bind("127.0.0.1:80".parse().unwrap(), None).unwrap();
    let (served, _commands) = served_with(Story::new(), guard, Some(webhooks)).await;
    let (status, body) = github(&served, "push", PUSH.as_bytes()).await;
    assert_eq!((status, body["code"].as_str()), (500, Some("HM-H011")), "{body}");
    // A proxy on this machine passes on the name that the forge asked for.
    let signed = signature(SECRET, b"{}");
    let headers = [
        ("host", "mesh.example"),
        ("content-type", "application/json"),
        ("x-github-event", "ping"),
        ("x-hub-signature-256", &signed),
    ];
    assert_eq!(send(&served, "/webhooks/github", &headers, b"{}").await.0, 200);
}

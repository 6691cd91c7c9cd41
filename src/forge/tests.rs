//! Statuses against a forge on loopback that answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::IntoResponse;

use super::*;

/// A status, headers, a body.
pub(crate) type Answer = (u16, Vec<(&'static str, &'static str)>, &'static str);
/// Path, headers and body of a request.
pub(crate) type Asked = (String, HeaderMap, Value);

/// A forge that gives one answer after the other, and then 201 to everything.
pub(crate) struct Fake {
    pub base: String,
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

impl Fake {
    pub async fn start(answers: &[Answer]) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            answers: Mutex::new(answers.iter().cloned().collect()),
            asked: Mutex::new(Vec::new()),
        });
        let app = Router::new().fallback(Self::answer).with_state(Arc::clone(&fake));
        tokio::spawn(async { axum::serve(listener, app).await });
        fake
    }

    async fn answer(State(fake): State<Arc<Self>>, request: Request) -> impl IntoResponse {
        let path = format!("{} {}", request.method(), request.uri());
        let headers = request.headers().clone();
        let body: Bytes = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        fake.asked.lock().unwrap().push((path, headers, body));
        let next = fake.answers.lock().unwrap().pop_front();
        let (status, headers, body) = next.unwrap_or((201, Vec::new(), "{}"));
        let headers = headers.into_iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(&value.replace("BASE", &fake.base)).unwrap(),
            )
        });
        (axum::http::StatusCode::from_u16(status).unwrap(), headers.collect::<HeaderMap>(), body)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn github(&self) -> Forge {
        self.forge("github", "repos/larch/mesh")
    }

    fn forge(&self, kind: &str, path: &str) -> Forge {
        let address = format!("{kind}={}/{path}", self.base).parse().unwrap();
        Forge::new(address, "s3cret-of-the-forge", "prod", Some("http://mesh.example:8080/".into())).unwrap()
    }
}

const COMMIT: &str = "c0ffee0000000000000000000000000000000000";

#[tokio::test]
async fn each_forge_gets_its_own_words() {
    let fake = Fake::start(&[]).await;
    let (github, gitlab) = (fake.github(), fake.forge("gitlab", "api/v4/projects/42/"));
    for (outcome, hub, lab) in [
        (Outcome::Applied, "success", "success"),
        (Outcome::Held, "pending", "pending"),
        (Outcome::Denied, "failure", "failed"),
        (Outcome::Broken, "failure", "failed"),
    ] {
        github.post(COMMIT, outcome, "why").await.unwrap();
        gitlab.post(COMMIT, outcome, "why").await.unwrap();
        let asked = fake.asked();
        let [.., (hub_path, hub_headers, hub_body), (lab_path, lab_headers, lab_body)] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(hub_path, &format!("POST /repos/larch/mesh/statuses/{COMMIT}"));
        assert_eq!(hub_headers["authorization"], "Bearer s3cret-of-the-forge");
        assert_eq!(hub_body["state"], hub);
        assert_eq!(lab_path, &format!("POST /api/v4/projects/42/statuses/{COMMIT}"));
        assert_eq!(lab_headers["private-token"], "s3cret-of-the-forge");
        assert_eq!(lab_body["state"], lab);
        for body in [hub_body, lab_body] {
            assert_eq!(body["context"], "hydromesh/prod");
            assert_eq!(body["target_url"], "http://mesh.example:8080/");
            assert!(body["description"].as_str().unwrap().ends_with(": why"), "{body}");
        }
    }
    let before = fake.asked().len();
    github.post(COMMIT, Outcome::Superseded, "superseded by another").await.unwrap();
    assert_eq!(fake.asked().len(), before, "a superseded commit is neither good nor bad");
}

#[tokio::test]
async fn an_answer_says_whether_trying_again_can_help() {
    const LIMITED: &str = r#"{"message": "You have exceeded a secondary rate limit"}"#;
    let fake = Fake::start(&[
        (500, vec![], "oops"),
        (503, vec![("retry-after", "7")], ""),
        (429, vec![("retry-after", "Fri, 27 Nov 2026 10:00:00 GMT")], ""),
        (403, vec![("retry-after", "60")], LIMITED),
        (403, vec![], r#"{"message": "Resource not accessible"}"#),
        (401, vec![], r#"{"message": "Bad\r\ncredentials"}"#),
        (404, vec![], "<html>"),
        (422, vec![], r#"{"message": {"sha": ["is unknown"]}}"#),
        (400, vec![], r#"{"message": "Cannot transition status via :enqueue from :pending"}"#),
    ])
    .await;
    let forge = fake.github();
    let later = |why: &str, after: Option<u64>| {
        Err(PostError::Later { why: why.into(), after: after.map(Duration::from_secs) })
    };
    let refused = |why: &str| Err(PostError::Refused(why.into()));
    for wanted in [
        later("500 Internal Server Error", None),
        later("503 Service Unavailable", Some(7)),
        later("429 Too Many Requests", None),
        later("403 Forbidden: You have exceeded a secondary rate limit", Some(60)),
        refused("403 Forbidden: Resource not accessible"),
        refused("401 Unauthorized: Bad credentials"),
        refused("404 Not Found"),
        refused(r#"422 Unprocessable Entity: {"sha":["is unknown"]}"#),
        Ok(()),
    ] {
        assert_eq!(forge.post(COMMIT, Outcome::Held, "").await, wanted);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let fake = Fake::start(&[(307, vec![("location", "BASE/elsewhere")], "")]).await;
    let answer = fake.github().post(COMMIT, Outcome::Applied, "").await;
    let Err(PostError::Refused(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("307") && why.contains("redirects are not followed"), "{why}");
    assert_eq!(fake.asked().len(), 1, "the token went elsewhere");
}

#[tokio::test]
async fn an_endless_refusal_is_not_read_to_its_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("github=http://{}/repos/a/b", listener.local_addr().unwrap());
    let endless = || async {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1024])));
        (axum::http::StatusCode::BAD_REQUEST, axum::body::Body::from_stream(chunks))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(endless)).await });
    let forge = Forge::new(address.parse().unwrap(), "s3cret", "dev", None).unwrap();
    let answer =
        tokio::time::timeout(Duration::from_secs(10), forge.post(COMMIT, Outcome::Applied, "")).await;
    assert_eq!(answer.expect("it ends"), Err(PostError::Refused("400 Bad Request".into())));
}

#[tokio::test]
async fn nobody_who_listens_is_a_reason_to_try_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("github=http://{}/repos/a/b", listener.local_addr().unwrap());
    drop(listener);
    let forge = Forge::new(address.parse().unwrap(), "s3cret", "dev", None).unwrap();
    let answer = forge.post(COMMIT, Outcome::Applied, "").await;
    assert!(matches!(answer, Err(PostError::Later { after: None, .. })), "{answer:?}");
}

#[test]
fn the_token_travels_over_tls_or_stays_on_this_machine() {
    let parse = |text: &str| text.parse::<Address>();
    for good in [
        "github=https://api.github.com/repos/larch/mesh",
        "gitlab=https://gitlab.example/api/v4/projects/42",
        "gitlab=https://gitlab.example/api/v4/projects/larch%2Fmesh",
        "github=http://127.0.0.1:3000/repos/a/b",
        "github=http://[::1]:3000/repos/a/b",
        "gitlab=http://localhost/api/v4/projects/1",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("https://api.github.com/repos/larch/mesh", AddressError::Kind),
        ("bitbucket=https://bitbucket.org", AddressError::Kind),
        ("github=http://api.github.com/repos/larch/mesh", AddressError::Open),
        ("github=http://localhost.example.org/repos/a/b", AddressError::Open),
        ("github=ftp://127.0.0.1/", AddressError::Open),
        ("github=https://lena:s3cret@api.github.com/", AddressError::Parts),
        ("github=https://api.github.com/?access_token=s3cret", AddressError::Parts),
    ] {
        assert_eq!(parse(bad), Err(why), "{bad}");
    }
    assert!(matches!(parse("github=api.github.com"), Err(AddressError::Url(_))));
    let address = parse("github=https://api.github.com/repos/a/b").unwrap();
    assert!(matches!(Forge::new(address.clone(), "two lines\n", "dev", None), Err(ForgeError::Token)));
    assert!(matches!(Forge::new(address.clone(), "", "dev", None), Err(ForgeError::Token)));
    let forge = Forge::new(address, "s3cret-of-the-forge", "dev", None).unwrap();
    assert!(!format!("{forge:?}").contains("s3cret"), "{forge:?}");
}

#[test]
fn a_description_is_one_line_that_fits() {
    assert_eq!(describe(Outcome::Denied, "a:\n  pii\u{7}  leaks\t"), "denied: a: pii leaks");
    assert_eq!(describe(Outcome::Applied, ""), "applied:");
    let long = describe(Outcome::Held, &"ä".repeat(500));
    assert_eq!((long.chars().count(), long.ends_with("ä…")), (140, true));
    let whole = describe(Outcome::Held, &"ä".repeat(134));
    assert_eq!((whole.chars().count(), whole.ends_with('ä')), (140, true));
}

//! Look-ups, search, commands, health, the site, and what hostile input meets.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_mixes_live_and_batch_values_each_with_version_and_as_of() {
    let (served, _commands) = served(deployed_story()).await;
    let path = "/v1/features/customer/activity?customer_id=c-1&join=customer/customer-360&features=sessions_1h,spend_7d,as_of_date";
    let (status, body) = served.get(path).await;
    assert_eq!(status, 200, "{body}");
    insta::assert_json_snapshot!(body, @r#"
    {
      "product": "customer/activity",
      "ports": [
        {
          "port": "customer/activity.features",
          "source": "stream",
          "contract": "1.0.0",
          "generation": 1
        },
        {
          "port": "customer/customer-360.customer_360",
          "source": "batch",
          "contract": "1.0.0",
          "generation": 1
        }
      ],
      "entity": {
        "customer_id": "c-1"
      },
      "found": true,
      "joined": {
        "customer/customer-360.customer_360": true
      },
      "features": {
        "sessions_1h": {
          "value": 2,
          "as_of": "2026-11-20T02:25:55Z",
          "version": 12,
          "source": "stream"
        },
        "spend_7d": {
          "value": 31.5,
          "as_of": "2026-11-20T02:25:55Z",
          "version": 12,
          "source": "stream"
        },
        "as_of_date": {
          "value": "2026-11-19",
          "as_of": "2026-11-20T01:26:00Z",
          "version": 7,
          "source": "batch"
        }
      },
      "watermark": "2026-11-20T02:25:30Z"
    }
    "#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_entity_has_the_same_shape_and_nulls() {
    let (served, _commands) = served(deployed_story()).await;
    // All columns of both ports, as none of the example's collide.
    let (status, both) =
        served.get("/v1/features/customer/activity?customer_id=c-1&join=customer/customer-360").await;
    assert_eq!((status, &both["features"]["as_of_date"]["source"]), (200, &json!("batch")), "{both}");
    let (status, known) = served.get("/v1/features/customer/activity?customer_id=c-1").await;
    assert_eq!((status, &known["found"]), (200, &json!(true)), "{known}");
    let (status, body) = served.get("/v1/features/customer/activity?customer_id=nobody").await;
    assert_eq!((status, &body["found"]), (200, &json!(false)), "{body}");
    let names = |body: &Value| body["features"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&body), names(&known));
    assert!(names(&body).contains(&"biggest_basket_7d".to_owned()));
    assert!(body["features"].as_object().unwrap().values().all(|value| value["value"].is_null()), "{body}");
    // A batch port on its own is looked up in the same way.
    let (status, body) = served.get("/v1/features/customer/customer-360?customer_id=c-1").await;
    assert_eq!((status, &body["features"]["as_of_date"]["value"]), (200, &json!("2026-11-19")), "{body}");
    assert_eq!(body["features"]["as_of_date"]["as_of"], "2026-11-20T01:26:00Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_entities_come_back_in_their_order() {
    let (served, _commands) = served(deployed_story()).await;
    let entities: Vec<Value> =
        (0..100).map(|n| if n % 2 == 0 { json!(format!("c-{n}")) } else { json!(n) }).collect();
    let body = json!({ "entities": entities, "features": ["sessions_1h"], "join": [] });
    let (status, body) = served.post("/v1/features/customer/activity", &body).await;
    assert_eq!(status, 200, "{body}");
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 100);
    for (n, result) in results.iter().enumerate() {
        let even = n % 2 == 0;
        let entity = if even { format!("c-{n}") } else { n.to_string() };
        assert_eq!(result["entity"]["customer_id"], json!(entity));
        assert_eq!(result["found"], json!(even));
        assert_eq!(result["features"].as_object().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_has_its_code_and_a_way_out() {
    let (served, _commands) = served(deployed_story()).await;
    let activity = "/v1/features/customer/activity";
    let long = "x".repeat(257);
    let cases = [
        ("/v1/nothing".to_owned(), 404, "HM-H001", "/v1/features"),
        (
            "/v1/features/customer/activty?customer_id=1".to_owned(),
            404,
            "HM-H002",
            "did you mean `customer/activity`?",
        ),
        ("/v1/features/customer/..%2F..%2Fetc?x=1".to_owned(), 404, "HM-H002", "/v1/status"),
        ("/v1/features/%FF/x?x=1".to_owned(), 404, "HM-H001", ""),
        (activity.to_owned(), 400, "HM-H003", "?customer_id=VALUE"),
        (format!("{activity}?customerid=1"), 400, "HM-H003", "did you mean `customer_id`?"),
        (format!("{activity}?customer_id="), 400, "HM-H003", "1 to 256 bytes"),
        (format!("{activity}?customer_id={long}"), 400, "HM-H003", "1 to 256 bytes"),
        (format!("{activity}?customer_id=a%0Ab"), 400, "HM-H003", "control"),
        (format!("{activity}?customer_id=1&customer_id=2"), 400, "HM-H003", "POST"),
        (format!("{activity}?customer_id=1&features=spend_7"), 400, "HM-H006", "did you mean `spend_7d`?"),
        (
            format!("{activity}?customer_id=1&join=customer/customer-36"),
            404,
            "HM-H002",
            "customer/customer-360",
        ),
        (format!("{activity}?customer_id=1&join=customer/activity"), 400, "HM-H013", "once"),
        (format!("{activity}?customer_id=1&join=commerce/orders"), 404, "HM-H005", "lookup"),
        (format!("{activity}?customer_id=1&port=feature"), 404, "HM-H005", "did you mean `features`?"),
        ("/v1/features/commerce/orders?order_id=1".to_owned(), 404, "HM-H005", "hydromesh.access"),
        (format!("{activity}?customer_id=loading"), 503, "HM-H010", "again"),
        (format!("{activity}?customer_id=broken"), 500, "HM-H011", "log"),
        ("/v1/search/commerce/orders?q=x".to_owned(), 404, "HM-H005", "EmbeddingPipeline"),
        ("/v1/search/support/article-search".to_owned(), 400, "HM-H004", "?q="),
        ("/v1/search/support/article-search?q=x&limit=0".to_owned(), 400, "HM-H004", "limit"),
        ("/v1/search/support/article-search?q=x&limt=3".to_owned(), 400, "HM-H004", "did you mean `limit`?"),
        ("/v1/commands".to_owned(), 405, "HM-H012", "POST"),
    ];
    for (path, status, code, help) in cases {
        let (found, body) = served.get(&path).await;
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{path}: {body}");
        let told = format!("{} {}", body["message"], body["help"]);
        assert!(told.contains(help), "{path}: {body}");
        assert!(!told.contains("/secret/path"), "{body}");
    }
    for (body, status, code) in [
        (json!({ "entities": [] }), 400, "HM-H003"),
        (json!({ "entities": [null] }), 400, "HM-H003"),
        (json!({ "entities": [1.5] }), 400, "HM-H003"),
        (json!({ "entities": vec![1; 501] }), 400, "HM-H003"),
        (json!({ "entitys": ["c-1"] }), 400, "HM-H004"),
        (json!(["c-1"]), 400, "HM-H004"),
        (json!({ "entities": ["x".repeat(70_000)] }), 413, "HM-H008"),
    ] {
        let (found, answer) = served.post(activity, &body).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_look_up_is_given_up() {
    let (served, _commands) = served(deployed_story()).await;
    let (status, body) = served.get("/v1/features/customer/customer-360?customer_id=slow").await;
    assert_eq!((status, body["code"].as_str()), (504, Some("HM-H009")), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_answers_with_the_best_first() {
    let (served, _commands) = served(deployed_story()).await;
    let (status, body) = served.get("/v1/search/support/article-search?q=how%20to%20return&limit=3").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["hits"].as_array().unwrap().len(), 3);
    assert_eq!(body["hits"][0], json!({ "id": "a-0", "score": 1.0, "text": "how to return", "version": 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_control_once_and_only_with_the_token() {
    let (served, mut commands) = served(deployed_story()).await;
    let retry = json!({ "verb": "retry", "product": "commerce/orders", "reason": "disk is free", "key": "k1", "actor": "lena" });
    let control = tokio::spawn(async move {
        let mut ids = Vec::new();
        for accepted in [true, false] {
            let request = commands.recv().await.unwrap();
            assert_eq!((request.command.actor.as_str(), request.key.as_str()), ("lena", "k1"));
            assert!(
                matches!(&request.command.verb, hydromesh_core::ledger::Verb::Retry { product } if product.to_string() == "commerce/orders")
            );
            ids.push(request.command.id);
            request.answer.send(CommandReply { accepted, answer: "as you wish".into() }).unwrap();
        }
        assert_eq!(ids[0], ids[1], "the same key is the same command");
        commands
    });
    let (status, body) = served.post("/v1/commands", &retry).await;
    assert_eq!((status, &body["accepted"]), (200, &json!(true)), "{body}");
    let (status, body) = served.post("/v1/commands", &retry).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("HM-H014")), "{body}");
    let mut commands = control.await.unwrap();

    let bare = served.client.post(format!("{}/v1/commands", served.base)).json(&retry);
    for request in [
        bare.try_clone().unwrap(),
        bare.try_clone().unwrap().bearer_auth("correct-horse-batterz"),
        bare.bearer_auth(""),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
    }
    let odd = |change: fn(&mut serde_json::Map<String, Value>)| {
        let mut body = retry.as_object().unwrap().clone();
        change(&mut body);
        Value::Object(body)
    };
    for (body, status, told) in [
        (odd(|body| drop(body.remove("reason"))), 400, "reason"),
        (odd(|body| drop(body.remove("key"))), 400, "key"),
        (odd(|body| drop(body.insert("verb".into(), "drop".into()))), 400, "drop"),
        (odd(|body| drop(body.insert("prodct".into(), "x".into()))), 400, "did you mean `product`?"),
        (odd(|body| drop(body.insert("reason".into(), "a\nb".into()))), 400, "one line"),
        (odd(|body| drop(body.insert("product".into(), "../etc".into()))), 400, "name"),
        (odd(|body| drop(body.insert("product".into(), "commerce/order".into()))), 404, "commerce/orders"),
    ] {
        let (found, answer) = served.post("/v1/commands", &body).await;
        assert_eq!(found, status, "{answer}");
        assert!(answer.to_string().contains(told), "{answer}");
    }
    assert!(commands.try_recv().is_err(), "a refused request reached control");

    // Nobody takes them any more: the first two wait in the channel, the third is told so.
    drop(commands);
    let (status, body) = served.post("/v1/commands", &retry).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("HM-H015")), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_means_replayed_and_looked_at() {
    let (served, _commands) = served(Story::new()).await;
    assert_eq!(served.get("/healthz").await.0, 200);
    let (status, body) = served.get("/readyz").await;
    assert_eq!((status, body["awaited"].as_array().unwrap().len()), (503, 2));
    served.state.readiness.replayed();
    assert_eq!(served.get("/readyz").await.1["awaited"], json!(["no commit was looked at yet"]));
    served.state.readiness.looked();
    assert_eq!(served.get("/readyz").await, (200, json!({ "ready": true, "awaited": [] })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_runs_and_what_is_wrong() {
    let mut story = deployed_story();
    story.everything();
    let (served, _commands) = served(story).await;
    let (status, body) = served.get("/v1/status").await;
    assert_eq!((status, &body["commit"], &body["environment"]), (200, &json!("c0ffee"), &json!("dev")));
    let of = |id: &str| {
        body["products"].as_array().unwrap().iter().find(|it| it["product"] == id).unwrap().clone()
    };
    assert_eq!(of("commerce/orders")["status"], "breaching");
    assert_eq!(of("support/articles")["status"], "unknown", "it never published");
    assert_eq!(of("customer/customer-360")["status"], "healthy");
    assert_eq!(of("customer/customer-360")["ports"][0]["version"], 7);
    assert_eq!(body["alerts"][0]["product"], "commerce/orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_site_is_served_with_its_types_and_nothing_beside_it() {
    let (served, _commands) = served(Story::new()).await;
    let page =
        |path: &str| served.client.get(format!("{}{path}", served.base)).header("accept", "text/html").send();
    assert_eq!(page("/").await.unwrap().status(), 503, "not built yet");
    let files = crate::site::build(&crate::site::sample::model()).unwrap();
    crate::site::publish(&files, served.site.path()).unwrap();
    std::fs::write(served.site.path().join("secret.txt"), "secret").unwrap();
    std::fs::write(served.site.path().join("current/.hidden"), "secret").unwrap();
    for (path, bytes) in &files {
        let response = page(&format!("/{path}")).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let wanted = match path.rsplit_once('.').unwrap().1 {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml; charset=utf-8",
            "json" => "application/json",
            "atom" => "application/atom+xml; charset=utf-8",
            other => panic!("the site has a file of a kind without a type: {other}"),
        };
        assert_eq!(kind, wanted, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(&response.bytes().await.unwrap()[..], &bytes[..], "{path}");
    }
    assert_eq!(page("/").await.unwrap().headers()["content-type"], "text/html; charset=utf-8");
    for path in [
        "/badge/",
        "/p/",
        "/secret.txt",
        "/.hidden",
        "/%2ehidden",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/nothing",
        "/a\\..\\b",
    ] {
        let response = page(path).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        let text = response.text().await.unwrap();
        assert!(!text.contains("secret") && text.contains("There is no such page"), "{path}: {text}");
    }
    // Raw, as clients tidy paths before they send them.
    let mut socket = tokio::net::TcpStream::connect(served.base.trim_start_matches("http://")).await.unwrap();
    socket
        .write_all(b"GET /../secret.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("\r\n\r\nsecret"), "{answer}");
    let response = served.client.delete(format!("{}/index.html", served.base)).send().await.unwrap();
    assert_eq!(response.status(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_all_get_their_own_answer() {
    let (served, _commands) = served(deployed_story()).await;
    let asks = (0..100).map(|n| {
        let request =
            served.client.get(format!("{}/v1/features/customer/activity?customer_id=c-{n}", served.base));
        async move {
            let body: Value = request.send().await.unwrap().json().await.unwrap();
            (n, body)
        }
    });
    let answers = futures::future::join_all(asks).await;
    assert_eq!(answers.len(), 100);
    for (n, body) in answers {
        assert_eq!(body["entity"]["customer_id"], json!(format!("c-{n}")), "{body}");
        assert_eq!(body["found"], true);
    }
}

#[test]
fn other_addresses_need_a_good_token() {
    let bind = |address: &str, token| check_bind(address.parse().unwrap(), token);
    for loopback in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(bind(loopback, None).is_ok(), "{loopback}");
    }
    for open in ["0.0.0.0:80", "[::]:80", "192.168.1.4:80", "[::ffff:10.0.0.1]:80"] {
        assert!(matches!(bind(open, None), Err(BindError::NoToken { .. })), "{open}");
        assert!(bind(open, Some(TOKEN)).is_ok());
    }
    for weak in [
        "",
        "short",
        "fifteen-letters",
        "with spaces in between",
        "sixteen-letters\u{e9}",
        "line\nbreak-line-break",
    ] {
        assert!(matches!(bind("127.0.0.1:80", Some(weak)), Err(BindError::BadToken)), "{weak:?}");
    }
    assert!(!format!("{:?}", bind("0.0.0.0:80", Some(TOKEN))).contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_loopback_only_health_is_open() {
    let guard = check_bind("0.0.0.0:80".parse().unwrap(), Some(TOKEN)).unwrap();
    let (served, _commands) = served_by(deployed_story(), guard).await;
    for path in
        ["/", "/metrics", "/v1/status", "/v1/features/customer/activity?customer_id=c-1", "/v1/nothing"]
    {
        assert_eq!(served.get(path).await.0, 401, "{path}");
    }
    assert_eq!(served.get("/healthz").await.0, 200);
    let status = |request: reqwest::RequestBuilder| async { request.send().await.unwrap().status().as_u16() };
    let metrics = || served.client.get(format!("{}/metrics", served.base));
    assert_eq!(status(metrics().bearer_auth(TOKEN)).await, 200);
    assert_eq!(status(metrics().basic_auth("hydromesh", Some(TOKEN))).await, 200);
    assert_eq!(status(metrics().basic_auth("hydromesh", Some("wrong"))).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_answers_to_its_own_names_only() {
    let guard = check_bind("127.0.0.1:80".parse().unwrap(), None).unwrap();
    let (served, _commands) = served_by(deployed_story(), guard).await;
    for (host, wanted) in [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("rebound.example.org", 421),
        ("localhost.example.org:80", 421),
        ("127.0.0.1.example.org", 421),
    ] {
        let response = served
            .client
            .get(format!("{}/v1/status", served.base))
            .header("host", host)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{host}");
    }
    let (status, body) = served.post("/v1/commands", &json!({})).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("HM-H007")), "no token is set: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let (mut served, _commands) = served(Story::new()).await;
    let mut silent = tokio::net::TcpStream::connect(served.base.trim_start_matches("http://")).await.unwrap();
    silent.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.unwrap();
    assert_eq!(served.get("/healthz").await.0, 200);
    served.stop();
    let ended = tokio::time::timeout(GRACE + Duration::from_secs(3), &mut served.task).await;
    ended.expect("it ends in time").unwrap().unwrap();
}

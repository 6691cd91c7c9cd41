//! What people receive, by kind; what hostile names cannot do; and a real server where one is given.

use std::path::Path;

use hydromesh_core::ledger::{Alert, AlertKind, AlertState, EpisodeRecord};
use hydromesh_core::model::{Environment, Maintenance, StateKind, StepLimits, StreamKind, TableFormat};

use super::facts::Facts;
use super::*;

/// 2026-11-20 02:26 UTC.
const NOW: i64 = 1_795_141_560_000;
const TO: &str = "commerce-oncall@larchandpine.example";

fn settings(smtp: Option<&str>) -> Environment {
    Environment {
        r#ref: "refs/heads/main".into(),
        after: None,
        lake_path: "lake".into(),
        lake_format: TableFormat::Delta,
        state: StateKind::Sqlite,
        stream: StreamKind::TopicFolder,
        smtp: smtp.map(str::to_owned),
        mail_from: None,
        allow_commands: Vec::new(),
        allow_network: Vec::new(),
        limits: StepLimits::default(),
        cost: None,
        maintenance: Maintenance::default(),
    }
}

#[tokio::test]
async fn a_mail_server_is_greeted_and_one_that_is_not_there_is_told() {
    let state = Path::new("/nonexistent");
    assert!(!Mailer::from_settings(&settings(None), state).unwrap().greets().await.unwrap(), "there is none");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let away = Mailer::from_settings(&settings(Some(&address)), state).unwrap().greets().await;
    assert!(away.unwrap_err().is_transient());
}

fn alert(kind: AlertKind, state: AlertState, summary: &str, details: &[(&str, &str)]) -> Alert {
    Alert {
        episode: format!("commerce/orders:{kind:?}:orders:1795140600000").to_lowercase(),
        product: "commerce/orders".parse().unwrap(),
        kind,
        subject: "orders".into(),
        transition: if state == AlertState::Resolved { 2 } else { 1 },
        state,
        summary: summary.into(),
        details: details.iter().map(|(label, text)| ((*label).into(), (*text).into())).collect(),
        caused_by: None,
        targets: vec![TO.into()],
    }
}

fn late(state: AlertState) -> Alert {
    let summary = match state {
        AlertState::Resolved => "resolved: commerce/orders.orders is fresh again",
        _ => "commerce/orders.orders is late by 16m: its newest data is 2h16m old, the promise is 2h",
    };
    let details = [
        ("Port", "commerce/orders.orders"),
        ("Promise", "data at most 2h old"),
        ("Data is usable up to", "2026-11-20 00:10 UTC"),
        ("Blast radius", "2: commerce/daily-revenue, customer/customer-360"),
        ("Last deploy", "4f2c1d0e9a8b at 2026-11-18 09:00 UTC"),
        ("Runbook", "https://runbooks.larchandpine.example/commerce/orders"),
    ];
    alert(AlertKind::Freshness, state, summary, &details)
}

fn context() -> MailContext {
    MailContext {
        mesh: "Larch & Pine data mesh".into(),
        environment: "dev".into(),
        site: Some("http://127.0.0.1:8080/".into()),
        now_ms: NOW,
        first_message_id: None,
        history: History {
            since_ms: Some(NOW - 16 * 60_000),
            follows: false,
            tier: Some(1),
            occurrence: 2,
            last_change: Some(LastChange {
                commit: "4f2c1d0e9a8b7c6d5e4f".into(),
                author: "Lena Frei".into(),
                message: "Read the new export".into(),
                deployed_ms: NOW - 41 * 3_600_000,
            }),
            last_good: Some(LastGood {
                port: "commerce/orders.orders".parse().unwrap(),
                partition: "2026-11-19".into(),
                rows: 412,
                run: "run-00000310".into(),
                at_ms: NOW - 3 * 3_600_000,
            }),
            failing: vec![(
                "commerce/orders:orders-daily@2026-11-20..2026-11-20".into(),
                "HM-R003 disk full".into(),
            )],
            explains: vec!["commerce/daily-revenue".parse().unwrap()],
        },
    }
}

fn sender() -> lettre::message::Mailbox {
    LOCAL_SENDER.parse().unwrap()
}

fn built(alert: &Alert, context: &MailContext) -> String {
    let mail = message::build(&sender(), "0123456789abcdef0123", TO, alert, context).unwrap();
    String::from_utf8(mail.formatted()).unwrap()
}

fn renderings(alert: &Alert, context: &MailContext) -> (String, String, String) {
    let facts = Facts::of("0123456789abcdef0123", alert, context);
    let json = serde_json::to_string_pretty(&facts).unwrap();
    (text::render(&facts, &json), html::render(&facts, &json), json)
}

fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
    let head = mail.split("\r\n\r\n").next().unwrap();
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_late_product_says_what_since_when_why_and_what_to_type() {
    let (text, html, _) = renderings(&late(AlertState::Firing), &context());
    insta::assert_snapshot!("late_text", text);
    insta::assert_snapshot!("late_html", html);
    let phone: String = text.chars().take(200).collect();
    for needed in ["[PAGE]", "late by 16m", "02:10 UTC", "hydromesh why"] {
        assert!(phone.contains(needed), "{needed} is not on the first screen: {phone}");
    }
}

#[test]
fn a_resolved_message_says_how_long_it_took_and_asks_for_nothing() {
    let (text, ..) = renderings(&late(AlertState::Resolved), &context());
    insta::assert_snapshot!("resolved_text", text);
}

#[test]
fn each_kind_has_its_own_command_lines() {
    let detail = [("Explain", "hydromesh explain HM-R003")];
    let lines = |kind| {
        let alert = alert(kind, AlertState::Firing, "something is wrong", &detail);
        let facts = Facts::of("o", &alert, &context());
        let commands: Vec<String> = facts.actions.iter().map(|action| action.command.clone()).collect();
        format!("[{}] {}", facts.tag, commands.join(" | "))
    };
    insta::assert_snapshot!(
        [AlertKind::Freshness, AlertKind::Quality, AlertKind::Drift, AlertKind::Run, AlertKind::Deploy].map(lines).join("\n"),
        @r#"
    [PAGE] hydromesh explain HM-R003 | hydromesh why commerce/orders | hydromesh run commerce/orders --reason "late"
    [PAGE] hydromesh explain HM-R003 | hydromesh runs commerce/orders | hydromesh retry commerce/orders --reason "repaired"
    [TICKET] hydromesh explain HM-R003 | hydromesh models commerce/orders | hydromesh run commerce/orders --reason "drift"
    [PAGE] hydromesh explain HM-R003 | hydromesh runs commerce/orders | hydromesh retry commerce/orders --reason "cause is gone"
    [TICKET] hydromesh explain HM-R003 | hydromesh why-not commerce/orders
    "#
    );
}

#[test]
fn nobody_is_asked_to_run_what_follows_a_topic() {
    let history = History { follows: true, ..context().history };
    let context = MailContext { history, ..context() };
    for kind in [AlertKind::Freshness, AlertKind::Table] {
        let facts = Facts::of("o", &alert(kind, AlertState::Firing, "something is wrong", &[]), &context);
        let commands: Vec<&str> = facts.actions.iter().map(|action| action.command.as_str()).collect();
        assert!(commands.iter().all(|it| !it.starts_with("hydromesh run ")), "{commands:?}");
        assert!(commands.len() > 1, "{commands:?}");
    }
}

#[test]
fn the_messages_of_an_episode_thread() {
    let (fired, over) = (late(AlertState::Firing), late(AlertState::Resolved));
    let episode = EpisodeRecord { transitions: vec![(NOW, fired.clone()), (NOW + 1, over.clone())] };
    assert_eq!(first_message_id(&episode, &fired, TO), None);
    let first = first_message_id(&episode, &over, TO).unwrap();
    let begun = built(&fired, &context());
    let ended = built(&over, &MailContext { first_message_id: Some(first.clone()), ..context() });
    assert_eq!(header(&begun, "Message-ID"), Some(first.as_str()));
    assert_eq!(header(&begun, "In-Reply-To"), None);
    assert_eq!(header(&ended, "In-Reply-To"), Some(first.as_str()));
    assert_eq!(header(&ended, "References"), Some(first.as_str()));
    assert_ne!(header(&ended, "Message-ID"), Some(first.as_str()));
    assert!(header(&begun, "Subject").unwrap().starts_with("[PAGE] commerce/orders freshness: "));
    assert!(header(&ended, "Subject").unwrap().starts_with("[RESOLVED] commerce/orders freshness: "));
    assert_eq!(header(&begun, "Auto-Submitted"), Some("auto-generated"));
    assert_eq!(header(&begun, "X-Hydromesh-State"), Some("firing"));
    assert_eq!(header(&ended, "X-Hydromesh-Transition"), Some("2"));
    // Another address is another thread.
    assert_ne!(message_id(&fired.episode, 1, TO), message_id(&fired.episode, 1, "b@example.org"));
}

#[test]
fn every_rendering_shows_the_same_facts() {
    let (text, html, json) = renderings(&late(AlertState::Firing), &context());
    let facts = Facts::of("0123456789abcdef0123", &late(AlertState::Firing), &context());
    let mut needed = vec![facts.summary.clone(), facts.since[1..].to_owned(), facts.routing.clone()];
    needed.extend(
        facts
            .sections
            .iter()
            .flat_map(|section| &section.rows)
            .flat_map(|(label, text)| [label.clone(), text.clone()]),
    );
    needed.extend(facts.actions.iter().map(|action| action.command.clone()));
    needed.extend(facts.links.iter().map(|link| link.url.clone()));
    assert!(needed.len() > 30, "{needed:?}");
    for fact in needed {
        let escaped = fact.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;");
        assert!(text.contains(&fact), "text lacks {fact}");
        assert!(html.contains(&escaped), "html lacks {fact}");
        assert!(json.contains(&fact.replace('"', "\\\"")), "json lacks {fact}");
    }
    // The block for machines is the same document in both bodies, and parses.
    let block: serde_json::Value = serde_json::from_str(&text[text.find("\n{").unwrap()..]).unwrap();
    assert_eq!(block["product"], "commerce/orders");
    assert_eq!(block["state"], "firing");
    assert_eq!(block["format"], 1);
}

#[test]
fn hostile_names_stay_text() {
    let evil = "x\r\nBcc: all@example.org\r\n\r\n<script>alert(1)</script>\u{202e}\u{0}";
    let mut hostile = alert(
        AlertKind::Run,
        AlertState::Firing,
        evil,
        &[
            ("Error", evil),
            (evil, "value"),
            ("Explain", "hydromesh explain HM-X; rm -rf /"),
            ("Runbook", "javascript:alert(1)"),
            ("Blast radius", "cannot reach postgres://user:p4ss@db.example.org/x"),
        ],
    );
    hostile.subject = evil.into();
    hostile.episode = evil.into();
    let context = MailContext {
        mesh: evil.into(),
        environment: evil.into(),
        site: Some("javascript:alert(1)".into()),
        first_message_id: Some("<a@b>\r\nBcc: x@y.z".into()),
        ..context()
    };
    let mail = built(&hostile, &context);
    let head = mail.split("\r\n\r\n").next().unwrap();
    let mut names: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "Auto-Submitted",
            "Content-Type",
            "Date",
            "From",
            "MIME-Version",
            "Message-ID",
            "Subject",
            "To",
            "X-Hydromesh-Environment",
            "X-Hydromesh-Episode",
            "X-Hydromesh-Kind",
            "X-Hydromesh-Outbox",
            "X-Hydromesh-Product",
            "X-Hydromesh-State",
            "X-Hydromesh-Transition",
        ]
    );
    assert!(!head.contains('\0') && head.lines().all(|line| line.len() < 998), "{head}");
    let (text, html, json) = renderings(&hostile, &context);
    for rendering in [&text, &html, &json] {
        assert!(
            !rendering.contains("p4ss")
                && !rendering.contains("rm -rf")
                && !rendering.contains("javascript:"),
            "{rendering}"
        );
        assert!(!rendering.contains('\u{202e}') && !rendering.contains('\0') && !rendering.contains("\nBcc"));
    }
    assert!(!html.contains("<script"));
    let odd = ["", "no-at-sign", "a@b\r\nBcc: x@y.z", "a@b,c@d"];
    for to in odd {
        let refused = message::build(&sender(), "0", to, &hostile, &context);
        assert!(matches!(refused, Err(NotifyError::Address { .. })), "{to:?}");
    }
}

#[test]
fn a_flood_of_details_stays_below_100_kilobytes() {
    let long = "\"<é>\" ".repeat(10_000);
    let details: Vec<(&str, &str)> = (0..500).map(|_| (long.as_str(), long.as_str())).collect();
    let flood = alert(AlertKind::Quality, AlertState::Firing, &long, &details);
    let mail = built(&flood, &context());
    assert!(mail.len() < 100_000, "{} bytes", mail.len());
    assert!(header(&mail, "Subject").is_some());
    // Distinct ones, as equal rows are told once.
    let distinct: Vec<(String, String)> =
        (0..500).map(|n| (format!("{n} {long}"), format!("{n} {long}"))).collect();
    let flood = Alert { details: distinct, ..flood };
    let mail = built(&flood, &context());
    assert!(mail.contains("492 more") || mail.contains("more; see the"), "{mail}");
    assert!(mail.len() < 100_000, "{} bytes", mail.len());
}

#[test]
fn the_incident_link_is_a_page_of_the_site() {
    let mut model = crate::site::sample::model();
    let episode = "customer/activity:freshness:features:1795140600000";
    model.incidents[0].id = episode.to_owned();
    let product = model.incidents[0].product.clone();
    let files = crate::site::build(&model).unwrap();
    assert!(
        files.contains_key(&incident_page(episode)),
        "{:?}",
        files.keys().filter(|path| path.contains("incident")).collect::<Vec<_>>()
    );
    assert!(files.contains_key(&page::product_page(&product.parse().unwrap())));
}

#[tokio::test]
async fn without_a_server_a_message_is_one_file_however_often_it_is_delivered() {
    let state = tempfile::tempdir().unwrap();
    let mailer = Mailer::from_settings(&settings(None), state.path()).unwrap();
    for _ in 0..3 {
        let receipt =
            mailer.deliver("0123456789abcdef0123", TO, &late(AlertState::Firing), &context()).await.unwrap();
        assert_eq!(receipt, "mail/0123456789abcdef0123.eml");
    }
    let files: Vec<_> =
        std::fs::read_dir(state.path().join("mail")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["0123456789abcdef0123.eml"]);
    let mail = std::fs::read_to_string(state.path().join("mail/0123456789abcdef0123.eml")).unwrap();
    assert_eq!(mail, built(&late(AlertState::Firing), &context()));
    assert!(mail.contains("multipart/alternative"));
    for outbox in ["", "../x", "a/b", "a\n"] {
        let refused = mailer.deliver(outbox, TO, &late(AlertState::Firing), &context()).await;
        assert!(matches!(refused, Err(NotifyError::Outbox(_))), "{outbox:?}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_worth_another_try() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("mail"), "in the way").unwrap();
    let mailer = Mailer::from_settings(&settings(None), state.path()).unwrap();
    let error = mailer.deliver("0", TO, &late(AlertState::Firing), &context()).await.unwrap_err();
    assert!(error.is_transient() && matches!(error, NotifyError::Io { .. }), "{error}");
}

#[tokio::test]
async fn settings_are_judged_before_the_first_alert() {
    let state = Path::new("/nonexistent");
    for smtp in ["mail.example.org", "mail.example.org:smtp", ":25", "a b:25"] {
        let refused = Mailer::from_settings(&settings(Some(smtp)), state);
        assert!(matches!(refused, Err(NotifyError::Setting { setting: "mail.smtp", .. })), "{smtp}");
    }
    let refused = Mailer::from_settings(&settings(Some("mail.example.org:25")), state);
    assert!(matches!(refused, Err(NotifyError::Setting { setting: "mail.from", .. })));
    for smtp in ["127.0.0.1:2525", "[::1]:2525", "localhost:2525"] {
        assert!(Mailer::from_settings(&settings(Some(smtp)), state).is_ok(), "{smtp}");
    }
    let from = Environment { mail_from: Some("not an address".into()), ..settings(None) };
    assert!(matches!(
        Mailer::from_settings(&from, state),
        Err(NotifyError::Setting { setting: "mail.from", .. })
    ));
}

#[tokio::test]
async fn a_server_that_is_down_is_worth_another_try() {
    // Bound and dropped: nothing listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mailer =
        Mailer::from_settings(&settings(Some(&format!("127.0.0.1:{port}"))), Path::new("/")).unwrap();
    let error = mailer.deliver("0", TO, &late(AlertState::Firing), &context()).await.unwrap_err();
    assert!(error.is_transient() && matches!(error, NotifyError::Smtp(_)), "{error}");
}

/// A server that is not ours is the judge: it must take the message and hand on what we meant.
#[tokio::test]
async fn a_real_server_receives_the_thread() {
    let (Ok(smtp), Ok(folder)) =
        (std::env::var("HYDROMESH_TEST_SMTP"), std::env::var("HYDROMESH_TEST_MAILDIR"))
    else {
        eprintln!(
            "skipped: HYDROMESH_TEST_SMTP and HYDROMESH_TEST_MAILDIR are not set; see scripts/services/smtp.sh"
        );
        return;
    };
    let mailer = Mailer::from_settings(&settings(Some(&smtp)), Path::new("/nonexistent")).unwrap();
    assert!(mailer.greets().await.unwrap());
    let to = format!("oncall-{}@larchandpine.example", uuid::Uuid::new_v4().simple());
    let (fired, over) = (late(AlertState::Firing), late(AlertState::Resolved));
    let first = message_id(&fired.episode, 1, &to);
    let receipt = mailer.deliver("aa01", &to, &fired, &context()).await.unwrap();
    assert!(receipt.starts_with("250"), "{receipt}");
    let follow = MailContext { first_message_id: Some(first.clone()), ..context() };
    mailer.deliver("aa02", &to, &over, &follow).await.unwrap();
    let mut received = Vec::new();
    for part in ["new", "cur"] {
        let Ok(entries) = std::fs::read_dir(Path::new(&folder).join(part)) else { continue };
        for entry in entries {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap().replace("\r\n", "\n");
            if text.contains(&to) {
                received.push(text);
            }
        }
    }
    received.sort_by_key(|text| text.contains("[RESOLVED]"));
    assert_eq!(received.len(), 2);
    assert!(received[0].contains(&format!("Message-ID: {first}")), "{}", received[0]);
    assert!(received[1].contains(&format!("In-Reply-To: {first}")), "{}", received[1]);
    assert!(received[0].contains("text/plain") && received[0].contains("text/html"));
}

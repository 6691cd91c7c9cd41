//! `mesh.yaml` and `domain.yaml`.

use std::collections::BTreeMap;

use super::own_head;
use super::pipeline::parse_span;
use super::product::{is_mail, read_tier};
use crate::diag::{Diagnostic, codes};
use crate::ids::DomainName;
use crate::model::{
    After, Domain, Environment, Maintenance, Mesh, Price, Route, StateKind, StepLimits, StreamKind,
    TableFormat,
};
use crate::syntax::{Map, Node, Sink};
use crate::time::Span;

/// The tier of a domain that does not say: worth a mail, not worth waking anyone.
const DEFAULT_TIER: u8 = 2;
/// How long a commit has to be healthy in the environment before, when nobody says.
const USUAL_WAIT_MS: i64 = 30 * 60_000;

/// Reads `mesh.yaml`; domains and products are still empty.
#[must_use]
pub fn mesh(document: &Node, sink: &Sink) -> Mesh {
    let map = Map::new(document, sink);
    own_head(&map, "Mesh");
    let name = map.req_text("name").unwrap_or_default();
    let mut environments = BTreeMap::new();
    if let Some(list) = map.req_map("environments") {
        let entries = map.opt("environments").map(Node::entries).unwrap_or_default();
        if entries.is_empty() {
            sink.tell(codes::BAD_ENVIRONMENT, list.at, "the mesh has no environment");
        }
        let names: Vec<&str> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
        for (key, node) in entries {
            if let Err(error) = DomainName::new(key.text.as_str()) {
                sink.tell(codes::BAD_NAME, key.at, error.to_string());
            }
            environments.insert(key.text.clone(), environment(&key.text, node, sink, &names));
        }
        for (key, _) in entries.iter().filter(|(key, _)| comes_after_itself(&environments, &key.text)) {
            let message = format!("environment `{}` comes after itself, by way of others", key.text);
            sink.tell(codes::BAD_ENVIRONMENT, key.at, message);
        }
    }
    let mut routes = Vec::new();
    if let Some(alerts) = map.map("alerts") {
        for node in alerts.list("routes") {
            routes.extend(route(node, sink));
        }
        alerts.finish();
    }
    let mut title = name.clone();
    if let Some(site) = map.map("site") {
        title = site.text("title").unwrap_or(title);
        site.finish();
    }
    map.finish();
    Mesh { name, title, environments, routes, ..Mesh::default() }
}

fn environment(name: &str, node: &Node, sink: &Sink, names: &[&str]) -> Environment {
    let map = Map::new(node, sink);
    let r#ref = match map.text("ref") {
        Some(text) if text.starts_with("refs/") => text,
        // A bare word is a branch, as everywhere in git.
        Some(text) => format!("refs/heads/{text}"),
        None => {
            sink.tell(codes::BAD_ENVIRONMENT, map.at, format!("environment `{name}` has no `ref` to follow"));
            String::new()
        }
    };
    let after = map.opt("after").and_then(|node| after(name, &map, node, names));
    let (mut lake_path, mut lake_format) = ("lake".to_owned(), TableFormat::Delta);
    if let Some(lake) = map.map("lake") {
        lake_path = lake.text("path").unwrap_or(lake_path);
        let formats = [("delta", TableFormat::Delta), ("iceberg", TableFormat::Iceberg)];
        lake_format = lake.choice("format", &formats).unwrap_or(lake_format);
        lake.finish();
    }
    let mut state = StateKind::Sqlite;
    if let Some(inner) = map.map("state") {
        let kinds = [("sqlite", false), ("postgres", true)];
        let url = inner.text("url");
        if inner.choice("kind", &kinds) == Some(true) {
            match &url {
                None => sink.tell(codes::MISSING_KEY, inner.at, "a postgres state needs `url`"),
                Some(url) => {
                    if let Some(why) = misfit_of_address(url) {
                        sink.tell(codes::BAD_VALUE, inner.spot("url"), why);
                    }
                }
            }
            state = StateKind::Postgres { url: url.unwrap_or_default() };
        }
        inner.finish();
    }
    let mut stream = StreamKind::TopicFolder;
    if let Some(inner) = map.map("stream") {
        let brokers = inner.text("brokers");
        if inner.choice("kind", &[("topic_folder", false), ("kafka", true)]) == Some(true) {
            if brokers.is_none() {
                sink.tell(codes::MISSING_KEY, inner.at, "a kafka stream needs `brokers`");
            }
            stream = StreamKind::Kafka { brokers: brokers.unwrap_or_default() };
        }
        inner.finish();
    }
    let (mut smtp, mut mail_from) = (None, None);
    if let Some(mail) = map.map("mail") {
        smtp = mail.text("smtp");
        if let Some(server) = &smtp
            && server
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            sink.tell(codes::BAD_VALUE, mail.spot("smtp"), format!("`{server}` is not `host:port`"));
        }
        mail_from = mail.text("from");
        mail.finish();
    }
    let allowed = |key: &'static str| {
        let mut domains = Vec::new();
        for (text, at) in map.texts(key) {
            match DomainName::new(text) {
                Ok(domain) => domains.push(domain),
                Err(error) => sink.tell(codes::BAD_NAME, at, error.to_string()),
            }
        }
        domains
    };
    let (allow_commands, allow_network) = (allowed("allow_commands"), allowed("allow_network"));
    let limits = map.map("limits").map(limits).unwrap_or_default();
    let cost = map.map("cost").and_then(price);
    let maintenance = map.opt("maintenance").map(|node| maintenance(&map, node)).unwrap_or_default();
    map.finish();
    Environment {
        r#ref,
        after,
        lake_path,
        lake_format,
        state,
        stream,
        smtp,
        mail_from,
        allow_commands,
        allow_network,
        limits,
        cost,
        maintenance,
    }
}

/// Returns whether the environments before one lead back to it.
fn comes_after_itself(environments: &BTreeMap<String, Environment>, name: &str) -> bool {
    let before = |it: &&str| environments.get(*it).and_then(|it| it.after.as_ref());
    let chain = std::iter::successors(Some(name), |it| before(it).map(|it| it.environment.as_str()));
    chain.skip(1).take(environments.len()).any(|it| it == name)
}

/// `after: NAME` or `after: {environment, for}`.
fn after(name: &str, parent: &Map<'_>, node: &Node, names: &[&str]) -> Option<After> {
    let sink = parent.sink();
    let (environment, at, wait) = match node.text() {
        Some(text) => (Some(text), node.at, None),
        None => {
            let map = Map::new(node, sink);
            let wait = map.text("for").and_then(|text| parse_span(&map, "for", &text));
            let said = (map.req_text("environment"), map.spot("environment"), wait);
            map.finish();
            said
        }
    };
    let environment = environment?;
    if environment == name || !names.contains(&environment.as_str()) {
        let what = if environment == name { "itself" } else { "an environment that does not exist" };
        let message = format!("environment `{name}` follows {what}: `{environment}`");
        sink.push(
            Diagnostic::new(codes::BAD_ENVIRONMENT, sink.file(), at, message)
                .suggest(&environment, names.iter().copied().filter(|other| *other != name)),
        );
        return None;
    }
    Some(After { environment, r#for: wait.unwrap_or(Span::from_millis(USUAL_WAIT_MS)) })
}

/// `cost: {per_hour, currency}`.
fn price(map: Map<'_>) -> Option<Price> {
    let is_code = |text: &String| text.len() == 3 && text.chars().all(|c| c.is_ascii_uppercase());
    let currency = map.req_text("currency");
    if let Some(other) = currency.as_ref().filter(|text| !is_code(text)) {
        let message = format!("`{other}` is no currency: give its three letters, such as EUR or USD");
        map.sink().tell(codes::BAD_VALUE, map.spot("currency"), message);
    }
    // A million an hour is beyond any machine, and within what is counted without loss.
    let per_hour = map.number("per_hour").filter(|price| (0.0..=1e6).contains(price));
    if per_hour.is_none() {
        let message = "`per_hour` is what an hour of one step costs, from 0 to 1000000, such as 0.40";
        map.sink().tell(codes::BAD_VALUE, map.spot("per_hour"), message);
    }
    map.finish();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^12")]
    let micro = |price: f64| (price * 1e6).round() as u64;
    Some(Price { per_hour_micro: micro(per_hour?), currency: currency.filter(is_code)? })
}

/// `maintenance: off`, or `{every, unused, versions}`.
fn maintenance(parent: &Map<'_>, node: &Node) -> Maintenance {
    let mut said = Maintenance::default();
    if let Some(text) = node.text() {
        if matches!(text.as_str(), "off" | "false") {
            said.every = None;
        } else {
            parent.bad_choice(
                "maintenance",
                node.at,
                &text,
                &["off", "{every: 1d, unused: 7d, versions: 7d}"],
            );
        }
        return said;
    }
    let map = Map::new(node, parent.sink());
    let day = Span::from_millis(86_400_000);
    if let Some(every) = map.text("every").and_then(|text| parse_span(&map, "every", &text)) {
        if every.is_zero() {
            let message = "`every: 0s` would never end; `maintenance: off` does nothing";
            map.sink().tell(codes::BAD_VALUE, map.spot("every"), message);
        } else {
            said.every = Some(every);
        }
    }
    if let Some(unused) = map.text("unused").and_then(|text| parse_span(&map, "unused", &text)) {
        if unused < day {
            let message =
                "`unused` is a day at least: a step under way may still publish files that no version has";
            map.sink().tell(codes::BAD_VALUE, map.spot("unused"), message);
        } else {
            said.unused = unused;
        }
    }
    if let Some(versions) = map.text("versions").and_then(|text| parse_span(&map, "versions", &text)) {
        if versions < Span::from_millis(3_600_000) {
            let message =
                "`versions` is an hour at least: readers may be about to read one that was just replaced";
            map.sink().tell(codes::BAD_VALUE, map.spot("versions"), message);
        } else {
            said.versions = versions;
        }
    }
    map.finish();
    said
}

/// `limits: {steps, per_product, pools: {NAME: STEPS}}`.
fn limits(map: Map<'_>) -> StepLimits {
    let at_least_one = |map: &Map<'_>, key: &'static str| {
        let count = map.count(key);
        if count == Some(0) {
            let message =
                format!("`{key}: 0` would let nothing run; `hydromesh pause PRODUCT` holds a product");
            map.sink().tell(codes::BAD_VALUE, map.spot(key), message);
        }
        count
    };
    let mut limits = StepLimits {
        steps: at_least_one(&map, "steps"),
        per_product: at_least_one(&map, "per_product"),
        pools: BTreeMap::new(),
    };
    if map.map("pools").is_some() {
        for (key, node) in map.opt("pools").map(Node::entries).unwrap_or_default() {
            if let Err(error) = DomainName::new(key.text.as_str()) {
                map.sink().tell(codes::BAD_NAME, key.at, error.to_string());
                continue;
            }
            match node.text().and_then(|text| text.parse::<u32>().ok()).filter(|steps| *steps > 0) {
                Some(steps) => _ = limits.pools.insert(key.text.clone(), steps),
                None => {
                    let message = format!(
                        "pool `{}` needs the number of steps that it takes at once, from 1",
                        key.text
                    );
                    map.sink().tell(codes::BAD_VALUE, node.at, message);
                }
            }
        }
    }
    map.finish();
    limits
}

/// Returns what is wrong with the address of a PostgreSQL server; it may be a secret as a whole.
fn misfit_of_address(url: &str) -> Option<&'static str> {
    const SECRET: &str = "${secret:";
    if url.starts_with(SECRET) {
        return None;
    }
    let Some((_, rest)) =
        url.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
    else {
        return Some(
            "the address is not `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, nor `${secret:NAME}`",
        );
    };
    let user =
        rest.split(['/', '?']).next().and_then(|host| host.rsplit_once('@')).map_or("", |(user, _)| user);
    let password = user.split_once(':').map_or("", |(_, password)| password);
    let parameter = rest.split_once("password=").map_or("", |(_, password)| password);
    let open = [password, parameter].iter().any(|it| !it.is_empty() && !it.starts_with(SECRET));
    open.then_some("the address holds a password, which everybody who can read the repository knows: write `${secret:NAME}` in its place")
}

fn route(node: &Node, sink: &Sink) -> Option<Route> {
    let map = Map::new(node, sink);
    let mut domain = None;
    let mut legal = true;
    if let Some(matched) = map.map("match") {
        if let Some(text) = matched.text("domain") {
            match DomainName::new(text) {
                Ok(name) => domain = Some(name),
                Err(error) => {
                    legal = false;
                    sink.tell(codes::BAD_NAME, matched.spot("domain"), error.to_string());
                }
            }
        }
        matched.finish();
    }
    let _ = map.req("mail");
    let mail = mails(&map, "mail");
    map.finish();
    legal.then_some(Route { domain, mail })
}

fn mails(map: &Map<'_>, key: &'static str) -> Vec<String> {
    let mut mails = Vec::new();
    for (text, at) in map.texts(key) {
        if is_mail(&text) {
            mails.push(text);
        } else {
            map.sink().tell(codes::BAD_VALUE, at, format!("`{text}` is not a mail address"));
        }
    }
    mails
}

/// Reads `domain.yaml`.
#[must_use]
pub fn domain(document: &Node, sink: &Sink, name: &DomainName) -> Domain {
    let map = Map::new(document, sink);
    own_head(&map, "Domain");
    if let Some(stated) = map.text("name")
        && stated != name.as_str()
    {
        let message = format!("the domain's name is `{stated}`, its folder is `{name}`");
        sink.tell(codes::NAME_DIFFERS, map.spot("name"), message);
    }
    let title = map.text("title").unwrap_or_else(|| humanise(name.as_str()));
    let owners = mails(&map, "owners");
    let oncall = mails(&map, "oncall").into_iter().next();
    let tier = map.opt("tier").and_then(|node| read_tier(&map, node)).unwrap_or(DEFAULT_TIER);
    map.known(&["description"]);
    // Read again by whoever judges signatures, and not from this commit; here only for its form.
    let _ = map.texts("signers");
    map.finish();
    Domain { name: name.clone(), title, owners, oncall, tier }
}

/// Returns the domain that a folder without `domain.yaml` stands for.
#[must_use]
pub fn implied_domain(name: &DomainName) -> Domain {
    let title = humanise(name.as_str());
    Domain { name: name.clone(), title, owners: Vec::new(), oncall: None, tier: DEFAULT_TIER }
}

/// `daily-revenue` for people: `Daily revenue`.
#[must_use]
pub fn humanise(name: &str) -> String {
    let words = name.replace(['-', '_'], " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::parse;

    fn read(text: &str) -> (Maintenance, Vec<(String, String)>) {
        let (documents, _) = parse("mesh.yaml", &format!("maintenance: {text}\n"));
        let sink = Sink::new("mesh.yaml");
        let map = Map::new(&documents[0], &sink);
        let said = map.opt("maintenance").map(|node| maintenance(&map, node)).expect("it is there");
        (said, sink.into_found().into_iter().map(|it| (it.code.id().to_owned(), it.message)).collect())
    }

    #[test]
    fn an_environment_says_how_often_tables_are_looked_after() {
        let span = |text: &str| text.parse::<Span>().expect("a span");
        let daily = Maintenance::default();
        assert_eq!((daily.every, daily.unused, daily.versions), (Some(span("1d")), span("7d"), span("7d")));
        assert_eq!(read("off"), (Maintenance { every: None, ..daily }, vec![]));
        let weekly = Maintenance { every: Some(span("7d")), unused: span("30d"), versions: span("2h") };
        assert_eq!(read("{every: 7d, unused: 30d, versions: 2h}"), (weekly, vec![]));
        for (text, code, says) in [
            ("of", "HM-Y010", "allowed are off"),
            ("{every: 0s}", "HM-M023", "`maintenance: off` does nothing"),
            ("{unused: 1h}", "HM-M023", "a day at least"),
            ("{versions: 59m}", "HM-M023", "an hour at least"),
            ("{evry: 1d}", "HM-Y007", "unknown key `evry`"),
        ] {
            let (said, told) = read(text);
            assert_eq!(said, daily, "{text}");
            assert!(told.len() == 1 && told[0].0 == code && told[0].1.contains(says), "{text}: {told:?}");
        }
    }

    #[test]
    fn an_environment_comes_after_another_and_never_after_itself() {
        let read = |environments: &str| {
            let text =
                format!("apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments:\n{environments}");
            let (documents, _) = parse("mesh.yaml", &text);
            let sink = Sink::new("mesh.yaml");
            let said = mesh(&documents[0], &sink);
            let told: Vec<String> = sink.into_found().into_iter().map(|it| it.message).collect();
            (said.environments, told)
        };
        let dev = "  dev: {ref: main}\n";
        let (all, told) = read(&format!("{dev}  prod: {{ref: main, after: dev}}\n"));
        let after = |minutes: i64| After {
            environment: "dev".to_owned(),
            r#for: Span::from_millis(minutes * 60_000),
        };
        assert_eq!((all["prod"].after.clone(), told), (Some(after(30)), vec![]));
        let (all, told) =
            read(&format!("{dev}  prod: {{ref: main, after: {{environment: dev, for: 2h}}}}\n"));
        assert_eq!((all["prod"].after.clone(), told), (Some(after(120)), vec![]));
        for (prod, says) in [
            ("{ref: main, after: prod}", "follows itself"),
            ("{ref: main, after: dve}", "does not exist: `dve`"),
            ("{ref: main, after: {for: 2h}}", "environment"),
            ("{ref: main, after: {environment: dev, for: soon}}", "`soon` is not a duration"),
            ("{ref: main, after: {environment: dev, fro: 1h}}", "unknown key `fro`"),
        ] {
            let (_, told) = read(&format!("{dev}  prod: {prod}\n"));
            assert!(told.len() == 1 && told[0].contains(says), "{prod}: {told:?}");
        }
        let (_, told) = read("  a: {ref: m, after: b}\n  b: {ref: m, after: c}\n  c: {ref: m, after: a}\n");
        assert!(told.len() == 3 && told.iter().all(|it| it.contains("comes after itself")), "{told:?}");
        // One that rests on a circle is not in it.
        let (_, told) = read("  a: {ref: m, after: b}\n  b: {ref: m, after: a}\n  c: {ref: m, after: a}\n");
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn an_address_of_a_server_holds_no_password_that_is_not_a_secret() {
        for fits in [
            "${secret:STATE_URL}",
            "postgres://host/mesh",
            "postgresql://mesh@host:5433/mesh?sslmode=verify-full",
            "postgres://mesh:${secret:STATE_PASSWORD}@host/mesh",
            "postgres://host/mesh?user=mesh&password=${secret:STATE_PASSWORD}",
        ] {
            assert_eq!(misfit_of_address(fits), None, "{fits}");
        }
        for (address, says) in [
            ("postgres://mesh:hunter2@host/mesh", "holds a password"),
            ("postgres://host/mesh?password=hunter2", "holds a password"),
            ("mysql://host/mesh", "the address is not"),
            ("host:5432", "the address is not"),
            ("", "the address is not"),
        ] {
            let why = misfit_of_address(address).expect("refused");
            assert!(why.contains(says) && !why.contains("hunter2"), "{address}: {why}");
        }
    }
}

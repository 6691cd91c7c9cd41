//! The worker's side: a gate that is asked over a pipe, in a process that may die of its rules.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use super::{
    gate::Gate,
    wire::{Asked, MOST_REQUEST_BYTES, Place, Reply, Request, receive, send},
};

/// Sets of rules that are kept ready: those in force, and a few that older changes are judged by.
const KEPT: usize = 4;

/// Answers until nobody asks any more.
///
/// # Errors
/// When a request cannot be read or an answer not be written: whoever asked has gone, or is not one of ours.
pub fn serve(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut ready: VecDeque<(String, Gate)> = VecDeque::new();
    while let Some(bytes) = receive(&mut from, MOST_REQUEST_BYTES)? {
        let asked: Asked = serde_json::from_slice(&bytes)?;
        drop(bytes);
        let reply = match asked {
            Request::Load { digest, rules } => {
                ready.retain(|(known, _)| *known != digest);
                ready.truncate(KEPT - 1);
                ready.push_front((digest, rules.gate()));
                Reply::Loaded
            }
            Request::Decide { digest, input } => {
                match ready.iter().position(|(known, _)| *known == digest) {
                    None => Reply::NotLoaded,
                    Some(at) => {
                        // What was asked last is kept longest.
                        ready.make_contiguous()[..=at].rotate_right(1);
                        let mut broken = None;
                        let decision = ready[0].1.decide_watched(&input, &mut |set, package, verdict| {
                            let question = package.question(verdict);
                            let place = Place { set, question, file: package.file.clone() };
                            broken = broken.take().or(send(&mut to, &Reply::Asking(place)).err());
                        });
                        if let Some(error) = broken {
                            return Err(error);
                        }
                        Reply::Decided(Box::new(decision))
                    }
                }
            }
        };
        send(&mut to, &reply)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{gate::tests::input, rules::Rules, set::PolicySet, wire::MOST_REPLY_BYTES};
    use super::*;

    fn talk(requests: &[Request<&super::super::rules::RuleTexts, &serde_json::Value>]) -> Vec<Reply> {
        let (mut asked, mut said) = (Vec::new(), Vec::new());
        for request in requests {
            send(&mut asked, request).unwrap();
        }
        serve(asked.as_slice(), &mut said).unwrap();
        let mut from = said.as_slice();
        std::iter::from_fn(|| receive(&mut from, MOST_REPLY_BYTES).unwrap())
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .collect()
    }

    #[test]
    fn a_worker_decides_to_the_byte_what_a_gate_decides_and_says_where_it_is() {
        let own =
            [("policies/a.rego".to_owned(), "package mesh.a\nwarn contains {\"msg\": \"hm\"}\n".to_owned())];
        let rules = Rules::new(&PolicySet::embedded(), &own);
        let mut odd = input();
        odd["contracts"][0]["sla"][0]["value"] = json!(26.10);
        for input in [input(), odd, json!({"kind": 1})] {
            let digest = || rules.digest().to_owned();
            let said = talk(&[
                Request::Decide { digest: digest(), input: &input },
                Request::Load { digest: digest(), rules: rules.texts() },
                Request::Decide { digest: digest(), input: &input },
            ]);
            assert!(matches!(said[..2], [Reply::NotLoaded, Reply::Loaded]), "{said:?}");
            let Some(Reply::Decided(decision)) = said.last() else { panic!("{said:?}") };
            let here = rules.gate().decide(&input);
            assert_eq!(serde_json::to_string(decision).unwrap(), serde_json::to_string(&here).unwrap());
            let asked = said.iter().filter_map(|it| match it {
                Reply::Asking(place) => Some(place.question.as_str()),
                _ => None,
            });
            let asked: Vec<&str> = asked.collect();
            assert_eq!(asked.contains(&"data.mesh.a.warn"), here.error.is_none(), "{asked:?}");
        }
    }

    #[test]
    fn the_sets_of_rules_that_were_asked_last_are_kept() {
        let sets: Vec<Rules> = (0..=KEPT)
            .map(|n| {
                let text = format!("package mesh.a\nwarn contains {{\"msg\": \"{n}\"}}\n");
                Rules::new(&PolicySet::embedded(), &[("policies/a.rego".to_owned(), text)])
            })
            .collect();
        let input = input();
        let load = |n: usize| Request::Load { digest: n.to_string(), rules: sets[n].texts() };
        let ask = |n: usize| Request::Decide { digest: n.to_string(), input: &input };
        let mut requests: Vec<_> = (0..KEPT).map(load).collect();
        // The oldest is asked, so that the second goes when one more comes.
        requests.extend([ask(0), load(KEPT), ask(0), ask(1), ask(KEPT)]);
        let said = talk(&requests);
        let answers: Vec<Option<String>> = said
            .iter()
            .filter_map(|it| match it {
                Reply::Decided(decision) => Some(Some(decision.warnings[0].message.clone())),
                Reply::NotLoaded => Some(None),
                _ => None,
            })
            .collect();
        let text = |n: usize| Some(n.to_string());
        assert_eq!(answers, [text(0), text(0), None, text(KEPT)]);
    }

    #[test]
    fn what_is_no_request_ends_it() {
        for bytes in [&b"\0\0\0\x02{}"[..], b"\0\0\0\x05{", b"hello, who is there?"] {
            assert!(serve(bytes, Vec::new()).is_err(), "{bytes:?}");
        }
    }
}

//! Random changes against a model that is plain and slow.

use std::collections::BTreeMap;

use authdns::{Name, Rcode, RecordType, Zones};
use proptest::prelude::*;

use crate::common::*;

/// What stands where: the values of every owner. Everything else follows from it.
#[derive(Default)]
struct Model(BTreeMap<Name, Vec<String>>);

#[derive(Debug, PartialEq)]
enum Expected {
    Values(Vec<String>),
    NoData,
    NoName,
}

impl Model {
    fn set(&mut self, owner: &Name, values: &[String]) {
        let mut once: Vec<String> = Vec::new();
        for value in values {
            if !once.contains(value) {
                once.push(value.clone());
            }
        }
        match once.is_empty() {
            true => self.0.remove(owner),
            false => self.0.insert(owner.clone(), once),
        };
    }

    fn ask(&self, asked: &Name, fixed: &[Name]) -> Expected {
        if self.exists(asked, fixed) {
            return self.at(asked);
        }
        // The wildcard below the closest name that exists, if there is one (RFC 4592, 3.3.1).
        let ancestors = std::iter::successors(asked.parent(), Name::parent);
        let encloser = ancestors.into_iter().find(|ancestor| self.exists(ancestor, fixed)).expect("the apex exists");
        let wildcard = encloser.prepend(b"*").expect("short");
        if self.exists(&wildcard, fixed) { self.at(&wildcard) } else { Expected::NoName }
    }

    fn exists(&self, asked: &Name, fixed: &[Name]) -> bool {
        self.0.keys().chain(fixed).any(|owner| owner.is_within(asked))
    }

    fn at(&self, owner: &Name) -> Expected {
        self.0.get(owner).map_or(Expected::NoData, |values| Expected::Values(values.clone()))
    }
}

fn seen(zones: &Zones, asked: &Name) -> Expected {
    let answer = zones.lookup(asked, RecordType::TXT);
    match answer.rcode {
        Rcode::NxDomain => Expected::NoName,
        _ if answer.txt().is_empty() => Expected::NoData,
        _ => Expected::Values(answer.txt().into_iter().map(|value| String::from_utf8(value).expect("text")).collect()),
    }
}

/// Few labels, so that names meet each other often.
fn owner() -> impl Strategy<Value = Name> {
    prop::collection::vec("[abc*]", 0..5).prop_map(|labels| {
        let mut owner = name(APEX);
        for label in labels {
            owner = owner.prepend(label.as_bytes()).expect("short");
        }
        owner
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn zones_follow_the_model(
        steps in prop::collection::vec(prop::collection::vec((owner(), prop::collection::vec("[xy]{0,2}", 0..3)), 1..4), 1..40),
        asked in prop::collection::vec(owner(), 10),
    ) {
        let zones = Zones::new(vec![config(APEX, &["a.b.auth.example.org. A 192.0.2.1"])]).expect("sound");
        let fixed = [name("a.b.auth.example.org"), name(APEX)];
        let mut model = Model::default();
        for (serial, step) in steps.iter().enumerate() {
            for (owner, values) in step {
                model.set(owner, values);
            }
            let changes = step.iter().map(|(owner, values)| (owner.clone(), values.iter().map(|value| value.as_str().into()).collect()));
            zones.set_txt(&name(APEX), serial as u32, changes);
            prop_assert_eq!(zones.serial(&name(APEX)), Some(serial as u32));
            for asked in asked.iter().chain(step.iter().map(|(owner, _)| owner)) {
                prop_assert_eq!(seen(&zones, asked), model.ask(asked, &fixed), "{} after step {}", asked, serial);
            }
            for (owner, values) in &model.0 {
                let own: Vec<String> = zones.txt(owner).into_iter().map(String::from).collect();
                prop_assert_eq!(&own, values);
            }
        }
        // With everything gone, nothing is left but what never changes.
        zones.set_txt(&name(APEX), 0, model.0.keys().map(|owner| (owner.clone(), Vec::new())));
        for asked in &asked {
            prop_assert_eq!(seen(&zones, asked), Model::default().ask(asked, &fixed), "{} in the end", asked);
        }
    }
}

#[test]
fn a_value_is_seen_by_every_reader_as_soon_as_it_is_set() {
    let zones = zones();
    let owner = name("busy.auth.example.org");
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<u32>();
        let reader = {
            let (zones, owner) = (zones.clone(), owner.clone());
            scope.spawn(move || {
                // The channel carries a number only after its value has been set: from then on no older value may be answered.
                for number in receiver {
                    let values = zones.lookup(&owner, RecordType::TXT).txt();
                    let seen: u32 = String::from_utf8_lossy(&values[0]).parse().expect("a number");
                    assert!(seen >= number, "{seen} after {number}");
                }
            })
        };
        for number in 0..5_000u32 {
            zones.set_txt(&name(APEX), number, [(owner.clone(), vec![number.to_string().into()])]);
            sender.send(number).expect("the reader listens");
        }
        drop(sender);
        reader.join().expect("the reader saw every value");
    });
}

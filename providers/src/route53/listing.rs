//! Reading many owners in few calls: a page of 300 record sets answers every wanted owner that lies within it, present or absent, and the next page begins
//! at the first owner that is still open. A thousand new names in a small zone are one call; two names at the two ends of a large one are two.

use std::{collections::HashMap, future::Future};

use authdns::Name;
use aws_sdk_route53::types::{ResourceRecordSet, RrType};

use super::name::{Place, parse, written};
use crate::Error;

/// The largest page.
const MOST_ITEMS: i32 = 300;
/// Pages that the sets of one owner may take; no owner can have so many.
const MOST_PAGES: usize = 100;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Marker {
    pub(super) name: String,
    pub(super) kind: RrType,
    pub(super) identifier: Option<String>,
}

/// A page of a listing, sorted by name and type.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    pub(super) sets: Vec<ResourceRecordSet>,
    /// Where the next one begins; `None` if this is the last.
    pub(super) next: Option<Marker>,
}

/// The TXT record sets at each of `owners` (and a CNAME there, as far as it was seen), in the order of `owners`. `fetch` gives the page from a marker on, with
/// so many items at most.
pub(super) async fn gallop<Fetch, Answer>(owners: &[Name], fetch: Fetch) -> Vec<Result<Vec<ResourceRecordSet>, Error>>
where
    Fetch: Fn(Marker, i32) -> Answer,
    Answer: Future<Output = Result<Page, Error>>,
{
    let items = if owners.len() == 1 { 1 } else { MOST_ITEMS };
    let mut open: Vec<(Place, &Name)> = owners.iter().map(|owner| (Place::of(owner), owner)).collect();
    open.sort();
    let mut answers: HashMap<&Name, Result<Vec<ResourceRecordSet>, Error>> = HashMap::with_capacity(owners.len());
    while let Some((start, first)) = open.first().cloned() {
        let marker = Marker { name: written(first), kind: RrType::Txt, identifier: None };
        let page = match whole(&fetch, marker, items).await {
            Ok(page) => page,
            Err(error) => {
                answers.extend(open.iter().map(|(_, owner)| (*owner, Err(error.clone()))));
                break;
            }
        };
        // Of the last owner of a page that is cut, some types may be missing.
        let end = page.next.as_ref().and_then(|_| page.sets.last()).and_then(|set| parse(set.name())).map(|name| Place::of(&name));
        let more = page.next.is_some();
        let mut found: HashMap<Name, Vec<ResourceRecordSet>> = HashMap::new();
        for set in page.sets {
            if matches!(set.r#type(), RrType::Txt | RrType::Cname)
                && let Some(name) = parse(set.name())
            {
                found.entry(name).or_default().push(set);
            }
        }
        open.retain(|(place, owner)| {
            let within = *owner == first
                || found.get(*owner).is_some_and(|sets| sets.iter().any(|set| *set.r#type() == RrType::Txt))
                || start.is_before(place) && (!more || end.as_ref().is_some_and(|end| place.is_before(end)));
            if within {
                answers.insert(*owner, Ok(found.remove(*owner).unwrap_or_default()));
            }
            !within
        });
    }
    let missing = || Err(Error::Transport("the listing left it out".to_owned()));
    owners.iter().map(|owner| answers.remove(owner).unwrap_or_else(missing)).collect()
}

/// A page that does not end amid the TXT sets of one owner (an owner with a routing policy has several).
async fn whole<Fetch, Answer>(fetch: &Fetch, marker: Marker, items: i32) -> Result<Page, Error>
where
    Fetch: Fn(Marker, i32) -> Answer,
    Answer: Future<Output = Result<Page, Error>>,
{
    let mut page = fetch(marker, items).await?;
    for _ in 0..MOST_PAGES {
        let (Some(next), Some(last)) = (&page.next, page.sets.last()) else { return Ok(page) };
        if next.kind != RrType::Txt || *last.r#type() != RrType::Txt || parse(&next.name) != parse(last.name()) {
            return Ok(page);
        }
        let more = fetch(next.clone(), MOST_ITEMS).await?;
        page.sets.extend(more.sets);
        page.next = more.next;
    }
    Err(Error::Transport(format!("the listing does not end after {MOST_PAGES} pages of one name")))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use parking_lot::Mutex;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn set(owner: &str, kind: RrType, identifier: Option<&str>) -> ResourceRecordSet {
        ResourceRecordSet::builder()
            .name(written(&name(owner)))
            .r#type(kind)
            .set_set_identifier(identifier.map(str::to_owned))
            .build()
            .expect("a set")
    }

    /// A zone sorted as the documentation says, or label by label.
    struct Zone {
        sets: Vec<ResourceRecordSet>,
        by_label: bool,
        calls: Mutex<Vec<(String, i32)>>,
    }

    impl Zone {
        fn new(mut sets: Vec<ResourceRecordSet>, by_label: bool) -> Self {
            sets.sort_by(|a, b| order(&key(a), &key(b), by_label));
            Self { sets, by_label, calls: Mutex::default() }
        }

        fn page(&self, from: &Marker, items: i32) -> Page {
            self.calls.lock().push((from.name.clone(), items));
            let from = (from.name.clone(), from.kind.as_str().to_owned(), from.identifier.clone().unwrap_or_default());
            let items = usize::try_from(items).expect("few");
            let mut rest = self.sets.iter().filter(|set| order(&key(set), &from, self.by_label) != Ordering::Less);
            let sets: Vec<_> = rest.by_ref().take(items).cloned().collect();
            let next = rest.next().map(|set| Marker {
                name: set.name().to_owned(),
                kind: set.r#type().clone(),
                identifier: set.set_identifier().map(str::to_owned),
            });
            Page { sets, next }
        }

        async fn read(&self, owners: &[Name]) -> (Vec<usize>, usize) {
            self.calls.lock().clear();
            let answers = gallop(owners, |marker, items| {
                let page = self.page(&marker, items);
                async move { Ok(page) }
            })
            .await;
            let txt = |sets: Vec<ResourceRecordSet>| sets.iter().filter(|set| *set.r#type() == RrType::Txt).count();
            let counts = answers.into_iter().map(|answer| txt(answer.expect("read"))).collect();
            (counts, self.calls.lock().len())
        }
    }

    fn key(set: &ResourceRecordSet) -> (String, String, String) {
        (set.name().to_owned(), set.r#type().as_str().to_owned(), set.set_identifier().unwrap_or_default().to_owned())
    }

    fn order(a: &(String, String, String), b: &(String, String, String), by_label: bool) -> Ordering {
        let labels = |text: &str| -> Vec<String> { text.trim_end_matches('.').rsplit('.').map(str::to_owned).collect() };
        let names =
            if by_label { labels(&a.0).cmp(&labels(&b.0)) } else { (labels(&a.0).join(".") + ".").cmp(&(labels(&b.0).join(".") + ".")) };
        names.then_with(|| (&a.1, &a.2).cmp(&(&b.1, &b.2)))
    }

    #[tokio::test]
    async fn many_new_names_of_a_small_zone_are_one_call() {
        let zone = Zone::new(vec![set("example.com", RrType::Ns, None), set("example.com", RrType::Soa, None)], false);
        let owners: Vec<Name> = (0..500).map(|n| name(&format!("_acme-challenge.n{n}.example.com"))).collect();
        assert_eq!(zone.read(&owners).await, (vec![0; 500], 1));
        assert_eq!(zone.read(&owners[..1]).await, (vec![0], 1));
        assert_eq!(zone.calls.lock()[0], ("_acme-challenge.n0.example.com.".to_owned(), 1), "one owner is one small call");
    }

    #[tokio::test]
    async fn every_owner_is_read_as_it_stands_however_the_server_sorts() {
        for by_label in [false, true] {
            let mut sets = vec![set("example.com", RrType::Soa, None), set("example.com", RrType::Txt, None)];
            let mut owners = vec![name("example.com"), name("*.example.com"), name("z.example.com")];
            let mut expected = vec![1, 1, 0];
            sets.push(set("*.example.com", RrType::Txt, None));
            // Names that the two ways of sorting order differently lie side by side, present and absent.
            for n in 0..400 {
                for (form, present) in [("h{}", n % 2 == 0), ("h{}-a", n % 3 == 0), ("x.h{}", n % 5 == 0), ("h{}\\!", n % 7 == 0)] {
                    let owner = format!("{}.example.com", form.replace("{}", &n.to_string()));
                    sets.push(set(&owner, RrType::A, None));
                    if present {
                        sets.push(set(&owner, RrType::Txt, None));
                    }
                    owners.push(name(&owner));
                    expected.push(usize::from(present));
                }
            }
            let pages = sets.len() / 300 + 1;
            let zone = Zone::new(sets, by_label);
            let (counts, calls) = zone.read(&owners).await;
            assert_eq!(counts, expected, "sorted by labels: {by_label}");
            assert!(calls <= 2 * pages, "{calls} calls for {pages} pages");
        }
    }

    #[tokio::test]
    async fn the_sets_of_a_routing_policy_are_read_to_their_end() {
        let mut sets: Vec<_> = (0..700).map(|n| set("multi.example.com", RrType::Txt, Some(&format!("{n:04}")))).collect();
        sets.push(set("other.example.com", RrType::Cname, None));
        let zone = Zone::new(sets, false);
        assert_eq!(zone.read(&[name("multi.example.com")]).await, (vec![700], 4));
        assert_eq!(zone.read(&[name("multi.example.com"), name("n.example.com")]).await.0, [700, 0]);
    }

    #[tokio::test]
    async fn an_error_is_everybodys_who_is_still_open() {
        let owners = [name("a.example.com"), name("b.example.com")];
        let answers = gallop(&owners, |_, _| async { Err(Error::NotFound("the zone".to_owned())) }).await;
        assert!(answers.iter().all(|answer| *answer == Err(Error::NotFound("the zone".to_owned()))), "{answers:?}");
        assert_eq!(answers.len(), 2);
    }
}

//! Many changes in few calls, and one bad change never in the way of the others.

use std::future::Future;

use crate::{Change, Error, Receipt};

/// Why a call with several changes was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the provider said.
    pub error: Error,
    /// Which of the changes it complained about, by place in the call, each with its own error; empty where it did not say. A call is all or nothing: the
    /// others were not made either.
    pub culprits: Vec<(usize, Error)>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, culprits: Vec::new() }
    }
}

/// Sends all changes, with `call` for each run of changes that `fit` says one call can take (its answer is how many of the given changes, from the first on;
/// at least one is taken). One result for each change, in their order.
///
/// A call is made or refused as a whole. Of a refused one, the changes that the provider names are dropped and the others sent again; where it names none, the
/// call is halved until the bad change stands alone. After an error that is not about the changes (credential, rate, no answer) nothing more is sent.
pub async fn send<Fit, Call, Answer>(changes: &[Change], fit: Fit, call: Call) -> Vec<Result<Receipt, Error>>
where
    Fit: Fn(&[&Change]) -> usize,
    Call: Fn(Vec<Change>) -> Answer,
    Answer: Future<Output = Result<Receipt, Refusal>>,
{
    let mut results: Vec<Option<Result<Receipt, Error>>> = changes.iter().map(|_| None).collect();
    // What is to be sent, the next at the end; each entry is the places of its changes.
    let mut waiting: Vec<Vec<usize>> = if changes.is_empty() { Vec::new() } else { vec![(0..changes.len()).collect()] };
    while let Some(mut places) = waiting.pop() {
        let run: Vec<&Change> = places.iter().filter_map(|&place| changes.get(place)).collect();
        let fits = fit(&run).clamp(1, places.len());
        if fits < places.len() {
            waiting.push(places.split_off(fits));
        }
        let run: Vec<Change> = places.iter().filter_map(|&place| changes.get(place)).cloned().collect();
        let refusal = match call(run).await {
            Ok(receipt) => {
                settle(&mut results, &places, &Ok(receipt));
                continue;
            }
            Err(refusal) => refusal,
        };
        match &refusal.error {
            Error::Conflict(_) | Error::Rejected(_) | Error::NotFound(_) => {
                let mut named: Vec<usize> = Vec::new();
                for (place, error) in &refusal.culprits {
                    if let Some(&at) = places.get(*place) {
                        settle(&mut results, &[at], &Err(error.clone()));
                        named.push(at);
                    }
                }
                places.retain(|place| !named.contains(place));
                if named.is_empty() && places.len() > 1 {
                    let second = places.split_off(places.len() / 2);
                    waiting.push(second);
                    waiting.push(places);
                } else if named.is_empty() {
                    settle(&mut results, &places, &Err(refusal.error));
                } else if !places.is_empty() {
                    waiting.push(places);
                }
            }
            error => {
                settle(&mut results, &places, &Err(error.clone()));
                let unsent = match error {
                    Error::Transport(text) => Error::Unsent(format!("a call before this one got no answer: {text}")),
                    other => other.clone(),
                };
                for places in waiting.drain(..) {
                    settle(&mut results, &places, &Err(unsent.clone()));
                }
            }
        }
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(Error::Unsent("it was left out of every call".to_owned())))).collect()
}

fn settle(results: &mut [Option<Result<Receipt, Error>>], places: &[usize], result: &Result<Receipt, Error>) {
    for &place in places {
        if let Some(slot) = results.get_mut(place) {
            *slot = Some(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use parking_lot::Mutex;

    use super::*;

    fn changes(count: usize) -> Vec<Change> {
        let change = |n: usize| Change {
            owner: format!("n{n}.example.com").parse().expect("a name"),
            add: BTreeSet::from([n.to_string()]),
            remove: BTreeSet::new(),
            version: String::new(),
        };
        (0..count).map(change).collect()
    }

    fn number(change: &Change) -> usize {
        change.add.first().and_then(|value| value.parse().ok()).expect("a number")
    }

    /// Sends `count` changes of which `bad` are refused; gives who was refused and how many calls it took.
    async fn sent(count: usize, bad: &[usize], named: bool) -> (Vec<usize>, usize) {
        let calls = Mutex::new(0);
        let results = send(
            &changes(count),
            |run| run.len().min(200),
            |run| {
                *calls.lock() += 1;
                let culprits: Vec<_> = run.iter().enumerate().filter(|(_, change)| bad.contains(&number(change))).collect();
                let error = Error::Rejected("bad".to_owned());
                let refusal = Refusal {
                    error: error.clone(),
                    culprits: if named { culprits.iter().map(|(place, _)| (*place, error.clone())).collect() } else { Vec::new() },
                };
                let good = culprits.is_empty();
                async move { if good { Ok(Receipt::default()) } else { Err(refusal) } }
            },
        )
        .await;
        let refused = results.iter().enumerate().filter(|(_, result)| result.is_err()).map(|(place, _)| place).collect();
        let calls = *calls.lock();
        (refused, calls)
    }

    #[tokio::test]
    async fn calls_are_filled() {
        assert_eq!(sent(0, &[], true).await, (vec![], 0));
        assert_eq!(sent(450, &[], true).await, (vec![], 3));
    }

    #[tokio::test]
    async fn bad_changes_are_found_by_name_or_by_halving() {
        assert_eq!(sent(100, &[0, 50, 99], true).await, (vec![0, 50, 99], 2));
        let (refused, calls) = sent(128, &[77], false).await;
        assert_eq!(refused, [77]);
        assert_eq!(calls, 15, "two for each halving, and the first");
        assert_eq!(sent(3, &[0, 1, 2], false).await.0, [0, 1, 2]);
    }

    #[tokio::test]
    async fn after_no_answer_nothing_more_is_sent() {
        let calls = Mutex::new(0);
        let results = send(
            &changes(5),
            |_| 2,
            |_| {
                *calls.lock() += 1;
                async { Err(Error::Transport("gone".to_owned()).into()) }
            },
        )
        .await;
        assert_eq!(*calls.lock(), 1);
        assert_eq!(results.iter().filter(|result| matches!(result, Err(Error::Transport(_)))).count(), 2);
        assert_eq!(results.iter().filter(|result| matches!(result, Err(Error::Unsent(_)))).count(), 3);
    }
}

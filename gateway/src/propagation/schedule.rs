//! When to ask a server, chosen from the delays that were seen before. Pure: delays in, question times out.
//!
//! **The rule.** A server is asked for one owner name at most once a second ([`APART`]). So what matters is *when*: a question that comes a moment too
//! early costs a whole second.
//!
//! **What is known of a delay** is never the delay itself but an interval ([`Observation`]): the value was not there yet at one question, and was at the next. To take
//! the time of the second question for the delay would be to learn one's own schedule. The distribution is estimated from the intervals as such: the
//! self-consistent estimate for interval-censored data (Turnbull 1976), newer ones weighing more, and a little weight spread over everything, so that a change
//! is noticed.
//!
//! **What is forgotten.** Most waits teach nothing: the value was there at the usual time. Were the oldest interval to go for each new one, what little is known of
//! how early the value may be there would go too, and be learned anew at a second's cost each time. So the two intervals that are most alike become one. And the
//! other way round: two delays in a row that nobody would have expected are a change, and what was known before is dropped.
//!
//! **What is chosen.** The times with the least expected lag, a question having a small price of its own, by dynamic programming over a grid of times. A question
//! inside an interval of which nothing more is known gets a bonus for what it will teach. So a constant delay is found by bisection within a few waits, and
//! nobody is asked while nothing is to be expected.
//!
//! **The scouts.** Owner names that were sent together are there together. Where several are waited for, some of them take turns, so that a server is looked
//! at more often than once a second, though for no name more often than that. See [`scouts`].
//!
//! **What no schedule can do.** With one name, and a delay that is as likely now as a second later, the questions lie a second apart and the lag is half a second at
//! the median. It is less where half of the delays fall into windows of less than that, or where there are scouts.

use std::time::Duration;

/// The least time between two questions to one server for one owner name: a second, and what the way there may add to one and not to the next.
pub(super) const APART: Duration = Duration::from_millis(1010);
/// The first question, where nothing is known.
const FIRST: f64 = 0.1;
/// Intervals remembered.
const WINDOW: usize = 32;
/// What an observation weighs against the next newer one.
const FADING: f64 = 0.96;
/// A delay less likely than this is a surprise…
const SURPRISE: f64 = 0.1;
/// …once so many intervals are known.
const SETTLED: usize = 8;
/// Weight, in observations, of "anything may happen".
const DOUBT: f64 = 0.5;
/// What one question costs, in seconds of lag.
const PRICE: f64 = 0.01;
/// Waits to come that a lesson is good for.
const LESSONS: f64 = 8.0;
/// Rounds of the estimate.
const ROUNDS: usize = 40;
/// How much wider a stretch is made, in parts of the distance between the quartiles.
const BANDWIDTH: f64 = 0.38;
/// After the plan: pauses of so much of the time that has passed, and of so many seconds at most.
const GROWTH: f64 = 0.05;
const LONGEST: f64 = 3.0;
/// Points of the grid, and their least distance in seconds.
const POINTS: f64 = 500.0;
const FINEST: f64 = 0.01;
/// Names that take turns, at most: bounds the questions to one server in a second.
const MOST_SCOUTS: usize = 5;

/// A delay, as far as it can be known: longer than `after`, at most `by`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Observation {
    /// The last answer without the value, or zero.
    pub(super) after: Duration,
    /// The first answer with it.
    pub(super) by: Duration,
}

/// The delays of one server or one backend.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// Oldest first.
    seen: Vec<Weighted>,
    /// The newest was a surprise.
    surprised: bool,
}

/// An observation, or several that were alike: the interval that holds them all.
#[derive(Debug, Clone, Copy)]
struct Weighted {
    after: f64,
    by: f64,
    weight: f64,
}

/// The times of the questions to one server, counted from the start of the wait.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Growing; nothing is planned after the last.
    planned: Vec<f64>,
    /// Between two looks.
    apart: f64,
    /// Between two questions for one name.
    again: f64,
    /// After the plan, a look comes when the time that has passed has grown by this part…
    growth: f64,
    /// …and after so long at the latest.
    longest: f64,
}

/// How many of `owners` take turns at one server. About the root of their number: more would be seen sooner at first, but each that has just been asked in
/// vain has to wait for its second to pass.
pub(super) fn scouts(owners: usize) -> usize {
    (1..=MOST_SCOUTS).take_while(|count| count * (count - 1) < owners).last().unwrap_or(1)
}

impl History {
    /// Takes up a delay.
    pub(super) fn note(&mut self, seen: Observation) {
        let seen = Weighted { after: seen.after.as_secs_f64(), by: seen.by.as_secs_f64(), weight: 1.0 };
        let surprise = self.seen.len() >= SETTLED && likelihood(&self.cells(), seen) < SURPRISE;
        if surprise && self.surprised {
            self.seen.drain(..self.seen.len() - 1);
        }
        self.surprised = surprise;
        self.seen.iter_mut().for_each(|old| old.weight *= FADING);
        self.seen.push(seen);
        if self.seen.len() > WINDOW {
            self.unite();
        }
    }

    /// Makes one of the two intervals that are most alike.
    fn unite(&mut self) {
        let pairs = (0..self.seen.len()).flat_map(|newer| (0..newer).map(move |older| (older, newer)));
        let unlike = |&(older, newer): &(usize, usize)| {
            let (older, newer) = (self.seen[older], self.seen[newer]);
            (older.after - newer.after).abs() + (older.by - newer.by).abs()
        };
        if let Some((older, newer)) = pairs.min_by(|a, b| unlike(a).total_cmp(&unlike(b))) {
            let with = self.seen[older];
            let into = &mut self.seen[newer];
            *into = Weighted { after: into.after.min(with.after), by: into.by.max(with.by), weight: into.weight + with.weight };
            self.seen.remove(older);
        }
    }

    /// Intervals known.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// The best times for a wait for so many owner names.
    pub(super) fn schedule(&self, owners: usize) -> Schedule {
        let again = APART.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "at most five")]
        let apart = again / scouts(owners) as f64;
        let planned = if self.seen.is_empty() { vec![FIRST] } else { plan(&self.cells(), apart) };
        Schedule { planned, apart, again, growth: GROWTH, longest: LONGEST }
    }

    /// Where the delays lie: the self-consistent estimate, the newest weighing most.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = innermost(&self.seen);
        let total: f64 = self.seen.iter().map(|seen| seen.weight).sum();
        for _ in 0..ROUNDS {
            let mut next = vec![0.0; cells.len()];
            for seen in &self.seen {
                let inside = |cell: &Cell| seen.after <= cell.after && cell.by <= seen.by;
                let mass: f64 = cells.iter().filter(|cell| inside(cell)).map(|cell| cell.mass).sum();
                for (cell, next) in cells.iter().zip(&mut next).filter(|(cell, _)| mass > 0.0 && inside(cell)) {
                    *next += seen.weight * cell.mass / mass;
                }
            }
            cells.iter_mut().zip(next).for_each(|(cell, next)| cell.mass = next / total);
        }
        let certain = total / (total + DOUBT);
        cells.iter_mut().for_each(|cell| cell.mass *= certain);
        cells
    }
}

impl Schedule {
    /// For servers of our own: they are asked at once, and soon again.
    pub(super) fn eager() -> Self {
        Self { planned: vec![0.0], apart: 0.1, again: 0.1, growth: 0.5, longest: 2.0 }
    }

    /// For recursive resolvers. They remember for minutes that there was nothing, so that each question too early is dear.
    pub(super) fn patient() -> Self {
        Self { planned: vec![2.0], apart: 2.0, again: 2.0, growth: 0.5, longest: 15.0 }
    }

    /// The time of the look after the one at `last`.
    pub(super) fn after(&self, last: Option<Duration>) -> Duration {
        let Some(last) = last.map(|last| last.as_secs_f64()) else { return seconds(self.planned.first().copied().unwrap_or(FIRST)) };
        // Looks happen a little after their time; the plan is followed all the same.
        let planned = self.planned.iter().copied().find(|&planned| planned > last + self.apart / 2.0);
        seconds(planned.map_or_else(|| last + self.pause(last), |planned| planned.max(last + self.apart)))
    }

    /// When a name that was asked for at `last` in vain may be asked for again, at a server that has others of its batch.
    pub(super) fn again(&self, last: Duration) -> Duration {
        let last = last.as_secs_f64();
        seconds(last + self.pause(last).max(self.again))
    }

    fn pause(&self, passed: f64) -> f64 {
        (passed * self.growth).clamp(self.apart, self.longest.max(self.apart))
    }
}

/// A stretch of time in which delays end, alike throughout.
#[derive(Debug, Clone, Copy)]
struct Cell {
    after: f64,
    by: f64,
    mass: f64,
}

/// The stretches that begin where an interval begins and end where one ends, with none beginning or ending inside: the only ones that can have mass.
fn innermost(seen: &[Weighted]) -> Vec<Cell> {
    let ends = seen.iter().map(|seen| (seen.by, false));
    let mut bounds: Vec<(f64, bool)> = seen.iter().map(|seen| (seen.after, true)).chain(ends).collect();
    // What ends at a time holds it, what begins there does not: ends first.
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let pairs = bounds.iter().zip(bounds.iter().skip(1));
    let mut cells: Vec<Cell> = pairs
        .filter(|((after, begins), (by, begins_too))| *begins && !*begins_too && by > after)
        .map(|(&(after, _), &(by, _))| Cell { after, by, mass: 0.0 })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "at most 33")]
    let share = 1.0 / cells.len().max(1) as f64;
    cells.iter_mut().for_each(|cell| cell.mass = share);
    cells
}

/// How likely a delay in this interval was held to be.
fn likelihood(cells: &[Cell], seen: Weighted) -> f64 {
    let overlap = |cell: &Cell| (seen.by.min(cell.by) - seen.after.max(cell.after)).max(0.0);
    smoothed(cells).iter().map(|cell| cell.mass * (overlap(cell) / (cell.by - cell.after).max(f64::EPSILON)).min(1.0)).sum()
}

/// The times with the least expected lag, at least `apart` from each other.
fn plan(cells: &[Cell], apart: f64) -> Vec<f64> {
    let smooth = smoothed(cells);
    let end = smooth.iter().map(|cell| cell.by).fold(FIRST, f64::max);
    let step = (end / POINTS).max(FINEST);
    let times: Vec<f64> = std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at < end + step).collect();
    let doubt = 1.0 - smooth.iter().map(|cell| cell.mass).sum::<f64>();
    // Mass up to a time, and mass times its delay up to it: the lag of a stretch is then two differences.
    let sums: Vec<(f64, f64)> = times
        .iter()
        .map(|&at| {
            let everywhere = Cell { after: 0.0, by: end, mass: doubt };
            smooth.iter().chain([&everywhere]).fold((0.0, 0.0), |(mass, moment), cell| {
                let to = at.min(cell.by);
                let width = (cell.by - cell.after).max(f64::EPSILON);
                let part = cell.mass * (to - cell.after).max(0.0) / width;
                (mass + part, moment + part * f64::midpoint(cell.after, to))
            })
        })
        .collect();
    let around: Vec<Option<&Cell>> = times.iter().map(|at| cells.iter().find(|cell| cell.after < *at && *at < cell.by)).collect();
    let gap = whole(apart / step);
    let (pause, moments) = ((end * GROWTH).clamp(apart, LONGEST), sums.last().map_or(0.0, |(_, moment)| *moment));
    // From the back: the least cost of what comes after a look in vain at each time, and the look that gives it.
    let mut best: Vec<(f64, Option<usize>)> = vec![(0.0, None); times.len()];
    let next_look = |from: Option<usize>, best: &[(f64, Option<usize>)]| {
        let (since, (mass, moment)) = from.map_or((0.0, (0.0, 0.0)), |at| (times[at], sums[at]));
        let left = 1.0 - mass;
        let first = from.map_or(1, |at| at + gap);
        // Not to look again within the grid: what is left is found after its end.
        let none = ((end + pause) * left - (moments - moment), None);
        (first..times.len())
            .map(|at| {
                let lag = times[at] * (sums[at].0 - mass) - (sums[at].1 - moment);
                let lesson = around[at].map_or(0.0, |cell| {
                    let (from, width) = (cell.after.max(since), cell.by - cell.after);
                    LESSONS * cell.mass * (times[at] - from).max(0.0) * (cell.by - times[at]) / width.max(1.0) / width.min(1.0)
                });
                (lag + PRICE * left - lesson + best[at].0, Some(at))
            })
            .fold(none, |a, b| if b.0 < a.0 { b } else { a })
    };
    for at in (0..times.len()).rev() {
        best[at] = next_look(Some(at), &best);
    }
    let looks = std::iter::successors(next_look(None, &best).1, |&at| best[at].1);
    looks.map(|at| times[at]).collect()
}

/// The same, each stretch wider by what so few delays leave open (the usual bandwidth, from the quartiles): what was seen at 2.0 s and at 2.4 s may happen at 2.2 s.
/// Delays that are always the same stay as they are.
fn smoothed(cells: &[Cell]) -> Vec<Cell> {
    let total: f64 = cells.iter().map(|cell| cell.mass).sum();
    let quartile = |part: f64| {
        let sums = cells.iter().scan(0.0, |sum, cell| {
            *sum += cell.mass;
            Some((*sum, f64::midpoint(cell.after, cell.by)))
        });
        sums.filter(|(sum, _)| *sum <= part * total)
            .map(|(_, middle)| middle)
            .last()
            .or(cells.first().map(|cell| f64::midpoint(cell.after, cell.by)))
    };
    let spread = quartile(0.75).zip(quartile(0.25)).map_or(0.0, |(high, low)| high - low);
    let more = BANDWIDTH * spread;
    cells.iter().map(|cell| Cell { after: (cell.after - more).max(0.0), by: cell.by + more, mass: cell.mass }).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The whole number from which on a number is reached.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, and not negative")]
fn whole(number: f64) -> usize {
    number.ceil().max(1.0) as usize
}

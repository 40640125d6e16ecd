//! An authority that does everything wrong that authorities, their load balancers and the network in between do wrong, once, at each kind of request in turn. Each time the certificate is
//! issued in the end, from one order, and no value is left.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;

use acmegate_tests::{
    certificates::assert_issued,
    dns,
    misbehaving::{Fault, Kind, Misbehaving},
    world::{World, ZONE},
};

/// One fault, at every kind of request; each time by a process of its own, which knows no more than what stands in the store.
async fn at_every_kind(fault: Fault) {
    // Its own faults would come on top of ours, and every order is proved anew.
    let world = World::builder().without_serve().ca(|options| options.every_nonce().no_reuse());
    let mut world = world.start().await;
    let proxy = Misbehaving::start(&world.ca).await;
    let ca_file = proxy.ca_file().display().to_string();
    let mut owners = Vec::new();
    // The first one registers the account.
    let kinds = [Kind::Account].into_iter().chain(Kind::ALL.into_iter().filter(|kind| *kind != Kind::Account));
    // These two are not signed: they bear no nonce that could be refused.
    let kinds = kinds.filter(|kind| fault != Fault::BadNonce || !matches!(kind, Kind::Directory | Kind::Nonce));
    for (number, kind) in kinds.enumerate() {
        let name = format!("n{number}.{ZONE}");
        let (orders, faults) = (orders(&world), proxy.done());
        proxy.plan(kind, fault);
        let order = world.acmegate.issue(&[&name]).directory(proxy.directory()).argument("--ca-file").argument(&ca_file);
        let issued = order.run().await;
        issued.succeeded();
        assert_issued(issued.folder(), &world.ca, &[&name]).await;
        assert_eq!(proxy.done(), faults + 1, "{fault:?} at {kind:?} has happened");
        assert_eq!(self::orders(&world), orders + 1, "{fault:?} at {kind:?}: one order for one certificate");
        owners.push(format!("_acme-challenge.{name}"));
    }
    world.acmegate.start().await;
    for owner in owners {
        assert_eq!(dns::txt(world.acmegate.dns(), &owner).await, BTreeSet::new(), "{fault:?}: {owner}");
    }
}

/// Orders that the authority has made.
fn orders(world: &World) -> usize {
    world.ca.log().matches("Added order ").count()
}

macro_rules! faults {
    ($($test:ident: $fault:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                at_every_kind(Fault::$fault).await;
            }
        )*

        #[test]
        fn every_fault_has_its_test() {
            assert_eq!(Fault::ALL, [$(Fault::$fault),*]);
        }
    };
}

faults! {
    nonces_are_refused: BadNonce,
    too_many_requests_by_seconds: TooManySeconds,
    too_many_requests_by_date: TooManyDate,
    a_server_error_with_a_page: ServerError,
    an_overload_as_a_load_balancer_tells_it: Overload,
    a_connection_that_is_cut_before_the_effect: CutBefore,
    a_connection_that_is_cut_after_the_effect: CutAfter,
    an_answer_byte_by_byte: Slow,
    an_answer_that_is_cut_in_half: Malformed,
    an_answer_of_another_type: WrongType,
    an_answer_without_its_headers: NoHeaders,
}

//! Delegations as they are found in the wild: renamed by DNAME, caught by a wildcard. BIND serves them, unbound resolves them.

use acmegate_tests::{
    certificates::assert_issued,
    world::{World, target},
};

/// `_acme-challenge.moved` is renamed to `_acme-challenge.there`, and that is delegated.
#[tokio::test]
async fn a_dname_on_the_way_is_followed() {
    let delegation = format!("_acme-challenge.there 60 CNAME {}", target("moved.example.test"));
    let world = World::builder().record("moved 60 DNAME there.example.test.").record(&delegation).start().await;
    let issued = world.acmegate.issue(&["moved.example.test"]).run().await;
    issued.succeeded();
    assert_issued(issued.folder(), &world.ca, &["moved.example.test"]).await;
}

/// A wildcard leads every name somewhere, challenge names too: nobody meant that, and nothing is written there. A record of its own comes before it.
#[tokio::test]
async fn a_wildcard_is_no_delegation() {
    let world = World::builder()
        .record("*.wild 60 CNAME www.example.test.")
        .record("www 60 A 127.0.0.1")
        .record(&format!("_acme-challenge.own.wild 60 CNAME {}", target("own.wild.example.test")))
        .start()
        .await;
    let caught = world.acmegate.issue(&["shop.wild.example.test"]).run().await;
    let record = format!("_acme-challenge.shop.wild.example.test. CNAME {}", target("shop.wild.example.test"));
    caught.output.exited(1).says("a wildcard CNAME above it leads it to www.example.test").says(&record);
    world.acmegate.issue(&["own.wild.example.test"]).run().await.succeeded();
}

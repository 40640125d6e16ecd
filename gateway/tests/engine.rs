//! The engine as a whole: it opens, runs, and closes in whatever order its parts are told.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{sync::Arc, time::Duration};

use gateway::{config::Config, engine::Engine, store::StoreError};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn it_closes_while_it_still_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Arc::new(Config { data: folder.path().join("data"), ..Config::embedded().expect("defaults") });
    let engine = Engine::open(config.clone(), &mut Registry::default()).expect("an engine");
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(stop).await }
    });
    tokio::time::timeout(Duration::from_secs(30), engine.close()).await.expect("it closes");
    assert_eq!(engine.store.census().await, Err(StoreError::Closed));
    stop.cancel();
    running.await.expect("the rest ends");
    assert!(Engine::open(config.clone(), &mut Registry::default()).is_err(), "the folder is held as long as a clone lives");
    drop(engine);
    Engine::open(config, &mut Registry::default()).expect("free again");
}

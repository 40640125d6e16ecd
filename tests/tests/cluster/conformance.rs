//! cert-manager's conformance suite, strict, over HTTPS.

use std::sync::Arc;

use acmegate_tests::{
    backends::{Backend, Embedded, Rfc2136, Site, ZONE},
    conformance::Suite,
};

use super::lab::{GROUP, SOLVER};

#[tokio::test]
async fn the_embedded_zone_conforms() {
    conforms(Arc::new(Embedded::new())).await;
}

#[tokio::test]
async fn dynamic_updates_to_bind_conform() {
    conforms(Arc::new(Rfc2136::bind().await)).await;
}

async fn conforms(backend: Arc<dyn Backend>) {
    let (_, server) = backend.nameservers().remove(0);
    let site = Site::start(backend).await;
    let suite = Suite {
        url: format!("https://{}", site.acmegate.door("webhook")),
        authority: site.door.certificate_file(),
        client: None,
        group: GROUP.into(),
        solver: SOLVER.into(),
        config: None,
        zone: ZONE.into(),
        dns: (server, 53).into(),
    };
    let output = suite.run().await;
    output.succeeded();
    // A suite that leaves its tests out succeeds, too.
    for test in ["Conformance/Basic/PresentRecord", "Conformance/Extended/DeletingOneRecordRetainsOthers"] {
        output.says(&format!("--- PASS: TestConformance/{test}"));
    }
    output.never_says("--- SKIP");
}

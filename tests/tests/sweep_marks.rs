//! `acmegate sweep` against an emulated Cloudflare: what a ledger from a backup does not know is found by the mark that its records carry.

use std::{fs, path::Path, sync::Arc};

use acmegate_tests::{
    acmedns::value,
    backends::{Backend, Cloudflare, Foreign, Site, ZONE},
    temporary_folder,
};

#[tokio::test]
async fn what_a_restored_backup_does_not_know_is_found_by_its_mark() {
    let cloud = Arc::new(Cloudflare::start().await);
    let mut site = Site::start(cloud.clone()).await;
    let (known, lost) = (format!("_acme-challenge.known.{ZONE}"), format!("_acme-challenge.lost.{ZONE}"));
    site.present(&known, &value(1)).await;
    site.acmegate.stop().await.succeeded();
    let backup = temporary_folder("backup");
    copy(site.acmegate.data(), backup.path());

    // After the backup was made, a value goes up, and a stranger writes beside it.
    site.acmegate.start().await;
    site.present(&lost, &value(2)).await;
    cloud.insert(&Foreign::new(&lost, 300, "a stranger's")).await;
    site.acmegate.stop().await.succeeded();
    copy(backup.path(), site.acmegate.data());
    site.acmegate.start().await;

    let listed = site.acmegate.run(&["sweep"]).await;
    listed.exited(1).says(&lost);
    assert!(!listed.stdout.contains(&known), "{listed}");
    site.becomes(&lost, &[&value(2), "a stranger's"]).await;
    let json = site.acmegate.run(&["sweep", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&json.exited(1).stdout).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(report["rows"][0]["owner"], lost, "{report}");

    site.acmegate.run(&["sweep", "--apply"]).await.succeeded();
    site.becomes(&lost, &["a stranger's"]).await;
    site.becomes(&known, &[&value(1)]).await;
    site.acmegate.run(&["sweep"]).await.succeeded();
}

/// The files of a folder, over whatever stands in another.
fn copy(from: &Path, to: &Path) {
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    for old in files(to) {
        fs::remove_file(&old).unwrap_or_else(|error| panic!("{}: {error}", old.display()));
    }
    for file in files(from) {
        let target = to.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

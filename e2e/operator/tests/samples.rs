//! The API server accepts every sample with strict field validation.
use std::fs;

use anyhow::{Result, ensure};
use e2e_operator::{api_server::ApiServer, root};

#[test]
fn every_sample_is_accepted() -> Result<()> {
    let Some(api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    let server = api.objects()?;
    let path = |relative: &str| root().join(relative).display().to_string();
    server.run(&["apply", "--server-side", "-f", &path("crds")])?;
    server.definitions_served()?;
    let mut seen = 0;
    for entry in fs::read_dir(root().join("manifests/samples"))? {
        let file = entry?.path().display().to_string();
        let args = [
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &file,
        ];
        let said = server.run(&args)?;
        ensure!(said.contains("created (server dry run)"), "{file}: {said}");
        seen += 1;
    }
    ensure!(seen >= 4, "{seen} samples");
    Ok(())
}

//! Properties of the Kubernetes cluster in which the operator runs: its DNS domain, and whether it assigns
//! users to pods.
use std::{fs, time::Duration};

use kube::Client;
use operator_api::names;

use crate::cluster::facts::observation::Platform;

/// Group of the API that only OpenShift has.
const OPENSHIFT_GROUP: &str = "security.openshift.io";
/// The resolver's configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Pause between requests to an API server that does not respond.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether the platform assigns users and groups to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OpenShift {
    /// As the API server's groups tell.
    #[default]
    Auto,
    /// It does.
    True,
    /// It does not.
    False,
}

/// Determines the platform. Repeats the request to the API server until it responds, because nothing can be
/// done before.
pub async fn find(client: &Client, domain: Option<String>, openshift: OpenShift) -> Platform {
    let found = fs::read_to_string(RESOLV_CONF).ok();
    let found = found.and_then(|text| search_domain(&text));
    let cluster_domain = domain
        .filter(|domain| !domain.is_empty())
        .or(found)
        .unwrap_or_else(|| names::USUAL_DOMAIN.to_owned());
    let assigns_users = match openshift {
        OpenShift::Auto => has_openshift(client).await,
        OpenShift::True => true,
        OpenShift::False => false,
    };
    tracing::info!(cluster_domain, assigns_users, "the platform");
    Platform {
        cluster_domain,
        assigns_users,
    }
}

async fn has_openshift(client: &Client) -> bool {
    loop {
        match client.list_api_groups().await {
            Ok(list) => return list.groups.iter().any(|g| g.name == OPENSHIFT_GROUP),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::info!("no permission to list API groups: not OpenShift");
                return false;
            }
            Err(error) => tracing::warn!("listing API groups: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The Kubernetes cluster's domain, from the search list that the kubelet writes for a pod:
/// `<namespace>.svc.<domain> svc.<domain> <domain>`.
fn search_domain(resolv_conf: &str) -> Option<String> {
    let mut lists = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("search")).then_some(words)
    });
    // The last list counts, as in the resolver.
    let domain = lists
        .next_back()?
        .find_map(|name| name.strip_prefix("svc."))?
        .trim_end_matches('.');
    (!domain.is_empty()).then(|| domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_in_the_search_list() {
        let cases = [
            (
                "search ops.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.0.0.1\n",
                Some("cluster.local"),
            ),
            (
                "nameserver fd00::a\nsearch ops.svc.k8s.Example.ORG. svc.k8s.Example.ORG. k8s.Example.ORG. corp.example\noptions ndots:5",
                Some("k8s.example.org"),
            ),
            ("search corp.example\n", None),
            ("search svc.a b\nsearch svc.c d\n", Some("c")),
            ("# search svc.x\n", None),
            ("search svc.\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(search_domain(text).as_deref(), expected, "{text:?}");
        }
    }
}

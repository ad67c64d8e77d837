//! The certificate by which backups' pods are known to nodes that ask clients for one. The cluster's own
//! authority signs it, which nodes trust for clients wherever their own certificate is from.
use operator_api::names;

use super::{CertificatePlan, Next, own, untrusting};
use crate::cluster::facts::{
    authentication::BACKUP_USER,
    certificates::{AUTHORITIES, CERTIFICATE, CROSS, KEY, check_client, read_pair},
    tls::{self, Side},
    view::View,
};

/// What its Secret is to hold; None: nodes ask for none.
pub fn next(view: &View<'_>, plan: &CertificatePlan) -> Option<Next> {
    plan.clients.as_ref().filter(|_| tls::asks_clients(view))?;
    let made = || Next::Leaf {
        trusted: Vec::new(),
    };
    let secret = own(view, &names::backup_tls_secret(view.name));
    let there = secret.and_then(|secret| Some((secret, read_pair(secret).ok()?)));
    let Some((secret, pair)) = there else {
        return Some(made());
    };
    let keys = [CERTIFICATE, KEY, AUTHORITIES].into_iter();
    let kept = keys.filter_map(|key| Some((key.to_owned(), secret.get(key)?.clone())));
    let kept = Next::Given(kept.collect());
    let lasting = plan.present.as_ref();
    let lasting = lasting.filter(|_| !matches!(plan.authority, Some(Next::Authority { .. })));
    let Some(authority) = lasting else {
        // What follows from the new one is decided when it is there.
        return Some(kept);
    };
    let is_signed = check_client(&pair, std::slice::from_ref(authority), view.now()).is_ok();
    let fits = is_signed
        && pair.leaf.common_name.as_deref() == Some(BACKUP_USER)
        && !pair.leaf.is_due(view.now());
    // One that the former authority signed as well is accepted by nodes that trust only that one.
    let lacks_way = own(view, &names::authority_secret(view.name))
        .is_none_or(|secret| secret.get(CROSS).is_none());
    let waits = !is_signed && lacks_way && untrusting(view, Side::Clients, &[authority]).is_some();
    let is_kept = fits || (waits && !pair.leaf.is_pressing(view.now()));
    Some(if is_kept { kept } else { made() })
}

#[cfg(test)]
mod tests {
    use operator_api::cluster::{ClientTls, ClientTlsMode, Tls};

    use super::super::plan;
    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn it_is_made_only_where_nodes_ask_for_one() {
        let mut fixture = Fixture::running(3, 0);
        for asks in [false, true] {
            fixture.seen.cluster.spec.tls = Some(Tls {
                nodes: None,
                clients: Some(ClientTls {
                    mode: Some(ClientTlsMode::Required),
                    require_client_certificate: asks,
                    ..ClientTls::default()
                }),
            });
            let view = View::of(&fixture.seen);
            let trusted = Vec::new();
            let expected = asks.then_some(Next::Leaf { trusted });
            assert_eq!(next(&view, &plan(&view)), expected);
        }
    }
}

//! Which path means which endpoint, who may call it, and with which methods.
//!
//! rqlite matches most paths by prefix (`/statusfoo` is `/status`) and some exactly; the table keeps that.
use hyper::Method;

use crate::auth::Perm;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Execute,
    Query,
    Request,
    Backup,
    Load,
    Sql,
    Boot,
    Snapshot,
    Reap,
    Compare,
    Remove,
    Leader,
    Status,
    Nodes,
    Readyz,
    Running,
    EndRunning,
    Licenses,
    Vars,
    Profile,
    Metrics,
    Console,
}

/// The kind of content of an endpoint's replies, also of its empty refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Text,
    /// Known only with the reply, if there is any.
    Later,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) endpoint: Endpoint,
    path: &'static str,
    exact: bool,
    /// All of them are needed.
    pub(super) perms: &'static [Perm],
    /// Empty means any.
    methods: &'static [Method],
    pub(super) content: Content,
}

impl Route {
    const fn prefix(
        endpoint: Endpoint,
        path: &'static str,
        perms: &'static [Perm],
        methods: &'static [Method],
        content: Content,
    ) -> Self {
        Self {
            endpoint,
            path,
            exact: false,
            perms,
            methods,
            content,
        }
    }

    const fn exact(
        endpoint: Endpoint,
        path: &'static str,
        perms: &'static [Perm],
        methods: &'static [Method],
        content: Content,
    ) -> Self {
        Self {
            endpoint,
            path,
            exact: true,
            perms,
            methods,
            content,
        }
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn matches(&self, path: &str) -> bool {
        if self.exact {
            path == self.path
        } else {
            path.starts_with(self.path)
        }
    }
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const GET_POST: &[Method] = &[Method::GET, Method::POST];
const GET_HEAD: &[Method] = &[Method::GET, Method::HEAD];
const DELETE: &[Method] = &[Method::DELETE];

/// Answered also when everything else is busy: what kubelets and load balancers ask, and what an administrator looks at then.
const PROBES: [&str; 7] = [
    "/readyz",
    "/status",
    "/nodes",
    "/leader",
    "/metrics",
    "/debug/vars",
    "/licenses",
];

/// Is this the path of a short look that needs no work of the database?
pub(super) fn is_probe(path: &str) -> bool {
    PROBES.iter().any(|probe| path.starts_with(probe))
}

/// The endpoints that carry the load; matched first, by the whole path.
const HOT: [Route; 3] = [
    Route::prefix(
        Endpoint::Execute,
        "/db/execute",
        &[Perm::Execute],
        POST,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Query,
        "/db/query",
        &[Perm::Query],
        GET_POST,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Request,
        "/db/request",
        &[Perm::Query, Perm::Execute],
        POST,
        Content::Json,
    ),
];

const OTHERS: [Route; 19] = [
    Route::prefix(
        Endpoint::EndRunning,
        "/db/running/",
        &[Perm::LeaderOps],
        DELETE,
        Content::Json,
    ),
    Route::exact(
        Endpoint::Running,
        "/db/running",
        &[Perm::Status],
        GET,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Console,
        "/console",
        &[Perm::Ui],
        GET_HEAD,
        Content::Later,
    ),
    Route::prefix(
        Endpoint::Backup,
        "/db/backup",
        &[Perm::Backup],
        GET,
        Content::Later,
    ),
    Route::prefix(
        Endpoint::Load,
        "/db/load",
        &[Perm::Load],
        POST,
        Content::Later,
    ),
    Route::prefix(
        Endpoint::Sql,
        "/db/sql",
        &[Perm::Query],
        GET_POST,
        Content::Json,
    ),
    Route::exact(Endpoint::Boot, "/boot", &[Perm::Load], POST, Content::Later),
    Route::exact(
        Endpoint::Snapshot,
        "/snapshot",
        &[Perm::Snapshot],
        POST,
        Content::Later,
    ),
    Route::exact(
        Endpoint::Reap,
        "/reap",
        &[Perm::Snapshot],
        POST,
        Content::Json,
    ),
    Route::exact(
        Endpoint::Compare,
        "/db/compare",
        &[Perm::LeaderOps],
        POST,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Remove,
        "/remove",
        &[Perm::Remove],
        DELETE,
        Content::Later,
    ),
    Route::prefix(
        Endpoint::Status,
        "/status",
        &[Perm::Status],
        GET,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Nodes,
        "/nodes",
        &[Perm::Status],
        GET,
        Content::Json,
    ),
    Route::exact(
        Endpoint::Leader,
        "/leader",
        &[Perm::LeaderOps],
        GET_POST,
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Readyz,
        "/readyz",
        &[Perm::Ready],
        GET,
        Content::Text,
    ),
    Route::exact(
        Endpoint::Licenses,
        "/licenses",
        &[Perm::Status],
        GET,
        Content::Text,
    ),
    Route::exact(
        Endpoint::Vars,
        "/debug/vars",
        &[Perm::Status],
        &[],
        Content::Json,
    ),
    Route::prefix(
        Endpoint::Profile,
        "/debug/pprof",
        &[Perm::Status],
        &[],
        Content::Text,
    ),
    Route::exact(
        Endpoint::Metrics,
        "/metrics",
        &[Perm::Status],
        GET,
        Content::Later,
    ),
];

/// Finds the endpoint of a path.
pub(super) fn resolve(path: &str) -> Option<&'static Route> {
    let [execute, query, request] = &HOT;
    match path {
        "/db/execute" => Some(execute),
        "/db/query" => Some(query),
        "/db/request" => Some(request),
        _ => HOT.iter().chain(&OTHERS).find(|route| route.matches(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_by_prefix_and_exactly() {
        let cases = [
            ("/db/execute", Some(Endpoint::Execute)),
            ("/db/executefoo", Some(Endpoint::Execute)),
            ("/db/query/x", Some(Endpoint::Query)),
            ("/db/request", Some(Endpoint::Request)),
            ("/db/exec", None),
            ("/db/sql", Some(Endpoint::Sql)),
            ("/statusfoo", Some(Endpoint::Status)),
            ("/status/", Some(Endpoint::Status)),
            ("/leader", Some(Endpoint::Leader)),
            ("/leader/", None),
            ("/boot", Some(Endpoint::Boot)),
            ("/boots", None),
            ("/snapshot/", None),
            ("/reap", Some(Endpoint::Reap)),
            ("/licenses", Some(Endpoint::Licenses)),
            ("/licenses/x", None),
            ("/debug/vars", Some(Endpoint::Vars)),
            ("/debug/varsx", None),
            ("/debug/pprof/profile", Some(Endpoint::Profile)),
            ("/console/index.html", Some(Endpoint::Console)),
            ("/metrics", Some(Endpoint::Metrics)),
            ("/readyz", Some(Endpoint::Readyz)),
            ("/Status", None),
            ("/db", None),
            ("/db/running", Some(Endpoint::Running)),
            ("/db/running/7", Some(Endpoint::EndRunning)),
            ("/db/runningx", None),
            ("/", None),
            ("", None),
        ];
        for (path, endpoint) in cases {
            assert_eq!(
                resolve(path).map(|route| route.endpoint),
                endpoint,
                "{path}"
            );
        }
    }

    #[test]
    fn methods() {
        let takes = |path, method: Method| resolve(path).unwrap().takes(&method);
        assert!(!takes("/db/execute", Method::GET));
        assert!(takes("/db/query", Method::GET));
        assert!(!takes("/status", Method::HEAD));
        assert!(takes("/console/", Method::HEAD));
        assert!(takes("/debug/vars", Method::PUT));
        assert!(takes("/remove", Method::DELETE));
        assert!(!takes("/remove", Method::POST));
    }
}

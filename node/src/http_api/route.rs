//! The table of endpoints: path, permissions and methods of each.
//!
//! rqlite matches most paths by prefix (`/statusfoo` is `/status`) and some exactly; the table keeps that.
use hyper::Method;

use crate::auth::Perm;

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Execute,
    Query,
    Request,
    Backup,
    Load,
    Sql,
    Boot,
    Archive,
    Snapshot,
    Reap,
    Compare,
    Check,
    Restore,
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

/// The content type of an endpoint's replies, also of its empty refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Text,
    /// The endpoint decides, if there is content at all.
    Later,
}

/// One entry of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) endpoint: Endpoint,
    path: &'static str,
    exact: bool,
    /// The caller needs all of them.
    pub(super) perms: &'static [Perm],
    /// Empty means any method.
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

    /// The path of the table.
    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
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
const GET_POST_DELETE: &[Method] = &[Method::GET, Method::POST, Method::DELETE];
const GET_HEAD: &[Method] = &[Method::GET, Method::HEAD];
const DELETE: &[Method] = &[Method::DELETE];

/// Paths that are served also when the node is overloaded: those that kubelets, load balancers and
/// administrators request then.
const PROBES: [&str; 8] = [
    "/archive",
    "/readyz",
    "/status",
    "/nodes",
    "/leader",
    "/metrics",
    "/debug/vars",
    "/licenses",
];

/// True for a path whose reply needs no work of the database.
pub(super) fn is_probe(path: &str) -> bool {
    PROBES.iter().any(|probe| path.starts_with(probe))
}

/// The frequent endpoints; matched first, by the whole path.
const FREQUENT: [Route; 3] = [
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

const OTHERS: [Route; 22] = [
    Route::exact(
        Endpoint::Archive,
        "/archive",
        &[Perm::Status],
        GET,
        Content::Json,
    ),
    Route::exact(
        Endpoint::Restore,
        "/archive/restore",
        &[Perm::Load],
        GET_POST_DELETE,
        Content::Json,
    ),
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
    Route::exact(
        Endpoint::Check,
        "/db/check",
        &[Perm::LeaderOps],
        GET_POST_DELETE,
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

/// The entry for a path.
pub(super) fn resolve(path: &str) -> Option<&'static Route> {
    let [execute, query, request] = &FREQUENT;
    match path {
        "/db/execute" => Some(execute),
        "/db/query" => Some(query),
        "/db/request" => Some(request),
        _ => FREQUENT
            .iter()
            .chain(&OTHERS)
            .find(|route| route.matches(path)),
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
            ("/db/check", Some(Endpoint::Check)),
            ("/db/checks", None),
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
        let allowed = |path, method: Method| resolve(path).unwrap().allows(&method);
        assert!(!allowed("/db/execute", Method::GET));
        assert!(allowed("/db/query", Method::GET));
        assert!(!allowed("/status", Method::HEAD));
        assert!(allowed("/console/", Method::HEAD));
        assert!(allowed("/debug/vars", Method::PUT));
        assert!(allowed("/remove", Method::DELETE));
        assert!(!allowed("/remove", Method::POST));
    }
}

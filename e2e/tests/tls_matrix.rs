//! Who gets in over TLS, who does not, and the words for each: every kind of certificate at both ports, shown
//! by clients, by nodes and by servers. The tables are the documentation.
#[path = "tls_matrix/callers.rs"]
mod callers;
#[path = "tls_matrix/ground.rs"]
mod ground;
#[path = "tls_matrix/own.rs"]
mod own;
#[path = "tls_matrix/servers.rs"]
mod servers;

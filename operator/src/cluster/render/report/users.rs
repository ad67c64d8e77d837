//! The status of users: what was decided, and which Secrets applications use to connect.
use operator_api::{RqliteClusterStatus, cluster::User, status::Binding};

use crate::cluster::facts::{authentication, users, view::View};

/// Records whether users are asked for, and who has a connection Secret.
pub(super) fn record(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let recorded = authentication::recorded(view, next.authentication.take());
    let wanted = users::users(&view.seen.cluster);
    let usual = User::application().name;
    let main = wanted.iter().find(|user| user.name == usual);
    let main = main.or(wanted.first()).map(|user| &user.name);
    let main = recorded.users.iter().find(|user| Some(&user.name) == main);
    next.binding = main
        .filter(|_| users::has_secrets(&recorded))
        .map(|user| Binding {
            name: user.secret_name.clone(),
        });
    next.authentication = Some(recorded);
}

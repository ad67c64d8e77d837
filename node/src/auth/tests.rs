//! The credentials file as a whole: start, reloads, and what logins may cost.
use std::{fs, os::unix::fs::symlink, time::Instant};

use super::*;

const LOCAL: LoginFrom = LoginFrom::Address(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn caller(name: &str, password: &str) -> Credentials {
    Credentials {
        username: name.to_owned(),
        password: password.to_owned(),
    }
}

fn open(path: &Path, own_user: &str, max_waiting: usize) -> Result<Auth, String> {
    let settings = AuthSettings {
        own_user: own_user.to_owned(),
        max_waiting,
        ..AuthSettings::default()
    };
    Auth::open(Some(path), settings)
}

fn source(auth: &Auth) -> &Source {
    auth.source.as_ref().unwrap()
}

fn one_user(name: &str, password: &str) -> String {
    format!(r#"[{{"username":"{name}","password":"{password}","perms":["execute"]}}]"#)
}

async fn may_execute(auth: &Auth, name: &str, password: &str) -> Access {
    let given = caller(name, password);
    auth.check(Some(&given), &[Perm::Execute], LOCAL).await
}

#[tokio::test]
async fn without_a_file_everything_is_allowed() {
    let auth = Auth::open(None, AuthSettings::default()).unwrap();
    assert!(!auth.enabled());
    assert_eq!(auth.check(None, &Perm::ALL, LOCAL).await, Access::Anyone);
    assert_eq!(auth.own_credentials(), None);
    assert_eq!(auth.status(), CredentialsStatus::default());
}

#[test]
fn a_bad_file_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    let refused = |path: &Path| {
        let error = open(path, "", 8).unwrap_err();
        assert!(
            error.starts_with("failed to get credential store: /"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        error
    };
    refused(&path);
    assert!(refused(dir.path()).contains("not a regular file"));
    for text in [
        "",
        "{}",
        "[{]",
        r#"[{"username":"bob","password":"$argon2id$hunter2"}]"#,
    ] {
        fs::write(&path, text).unwrap();
        refused(&path);
    }
    fs::write(&path, vec![b' '; 5 << 20]).unwrap();
    assert!(refused(&path).contains("larger than"));
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_a_bad_one_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    fs::write(&path, one_user("bob", "old")).unwrap();
    let auth = open(&path, "bob", 8).unwrap();
    assert_eq!(auth.own_credentials(), Some(caller("bob", "old")));
    assert_eq!(may_execute(&auth, "bob", "new").await, Access::Denied);
    let first = auth.status();
    assert_eq!(first.file_sha256.len(), 64);

    // Same size, same time.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, one_user("bob", "new")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    auth.reload();
    assert_eq!(may_execute(&auth, "bob", "new").await, Access::Allowed);
    assert_eq!(may_execute(&auth, "bob", "old").await, Access::Denied);
    assert_eq!(auth.own_credentials(), Some(caller("bob", "new")));
    let second = auth.status();
    assert_ne!(second.file_sha256, first.file_sha256);

    for bad in ["[", r#"[{"username":"bob","password":"$2b$hunter2"}]"#] {
        fs::write(&path, bad).unwrap();
        auth.reload();
        let status = auth.status();
        assert_eq!(status.file_sha256, second.file_sha256);
        let error = status.last_error.unwrap();
        assert!(
            error.contains("auth.json") && !error.contains("hunter2"),
            "{error}"
        );
        assert_eq!(may_execute(&auth, "bob", "new").await, Access::Allowed);
    }
    let metrics = &source(&auth).metrics;
    assert_eq!(metrics.get(Counter::AuthFileRefused), 1);

    fs::remove_file(&path).unwrap();
    auth.reload();
    auth.reload();
    assert!(auth.status().last_error.unwrap().contains("cannot be read"));
    assert_eq!(metrics.get(Counter::AuthReloadsFailed), 3);

    fs::write(&path, one_user("bob", "new")).unwrap();
    auth.reload();
    assert_eq!(auth.status(), second);
    fs::write(&path, "[]").unwrap();
    auth.reload();
    assert_eq!(may_execute(&auth, "bob", "new").await, Access::Denied);
    assert_eq!(metrics.get(Counter::AuthReloads), 2);
    assert_eq!(metrics.get(Counter::AuthFileRefused), 0);
}

#[tokio::test]
async fn a_file_behind_links_is_followed() {
    // As Kubernetes replaces the files of a Secret: auth.json -> ..data/auth.json, ..data -> a directory.
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, password) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("auth.json"), one_user("bob", password)).unwrap();
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/auth.json", at("auth.json")).unwrap();
    let auth = open(&at("auth.json"), "", 8).unwrap();
    assert_eq!(may_execute(&auth, "bob", "one").await, Access::Allowed);
    symlink("v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    auth.reload();
    assert_eq!(may_execute(&auth, "bob", "two").await, Access::Allowed);
    assert_eq!(may_execute(&auth, "bob", "one").await, Access::Denied);
}

/// A file with the user `bob`, whose password `right` is hashed.
fn hashed(dir: &Path, max_waiting: usize) -> Arc<Auth> {
    let path = dir.join("auth.json");
    let hash = hash_password("right", Algorithm::Argon2id).unwrap();
    fs::write(&path, one_user("bob", &hash)).unwrap();
    Arc::new(open(&path, "", max_waiting).unwrap())
}

#[tokio::test]
async fn a_password_is_hashed_once() {
    let dir = tempfile::tempdir().unwrap();
    let auth = hashed(dir.path(), 100);
    let metrics = Arc::clone(&source(&auth).metrics);
    let at_once: Vec<_> = (0..20)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { may_execute(&auth, "bob", "right").await })
        })
        .collect();
    for check in at_once {
        assert_eq!(check.await.unwrap(), Access::Allowed);
    }
    assert_eq!(metrics.get(Counter::AuthHashChecks), 1);
    for _ in 0..3 {
        assert_eq!(may_execute(&auth, "bob", "wrong").await, Access::Denied);
        assert_eq!(may_execute(&auth, "nobody", "wrong").await, Access::Denied);
        assert_eq!(may_execute(&auth, "", "wrong").await, Access::Denied);
    }
    assert_eq!(metrics.get(Counter::AuthHashChecks), 3);
    assert_eq!(metrics.get(Counter::AuthHashChecksWrong), 2);
    // An edit that leaves the user alone costs nothing; a new hash of the same password is compared.
    let path = dir.path().join("auth.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text} ")).unwrap();
    auth.reload();
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Allowed);
    assert_eq!(metrics.get(Counter::AuthHashChecks), 3);
    let hash = hash_password("other", Algorithm::Argon2id).unwrap();
    fs::write(&path, one_user("bob", &hash)).unwrap();
    auth.reload();
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Denied);
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let auth = hashed(dir.path(), 64);
    // As many as one address may have waiting, and more.
    let flood: Vec<_> = (0..100)
        .map(|number| {
            let auth = Arc::clone(&auth);
            let wrong = caller("bob", &format!("wrong{number}"));
            let from = LoginFrom::Address([10, 0, 0, 1].into());
            tokio::spawn(async move { auth.check(Some(&wrong), &[Perm::Execute], from).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = Instant::now();
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Allowed);
    let first = started.elapsed();
    let metrics = Arc::clone(&source(&auth).metrics);
    assert!(metrics.get(Counter::AuthHashChecksWrong) < 10, "{first:?}");
    let again = Instant::now();
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Allowed);
    assert!(again.elapsed() < first);
    let mut refused = 0;
    for check in flood {
        match check.await.unwrap() {
            Access::Busy(Busy::Address) => refused += 1,
            access => assert_eq!(access, Access::Denied),
        }
    }
    assert!(refused >= 60, "{refused}");
    assert_eq!(metrics.get(Counter::AuthLoginsRefused), refused);
}

/// The worst case: the same user, the same address, and a password that was never checked.
#[tokio::test]
async fn a_user_under_attack_from_the_own_address_gets_in_with_the_second_try() {
    let dir = tempfile::tempdir().unwrap();
    let auth = hashed(dir.path(), 64);
    let flood: Vec<_> = (0..100)
        .map(|number| {
            let auth = Arc::clone(&auth);
            let wrong = format!("wrong{number}");
            tokio::spawn(async move { may_execute(&auth, "bob", &wrong).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let first = may_execute(&auth, "bob", "right").await;
    assert_eq!(first, Access::Busy(Busy::Address));
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Allowed);
    let wrong = source(&auth).metrics.get(Counter::AuthHashChecksWrong);
    assert!(wrong < 10, "{wrong}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn who_has_gone_is_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    let auth = hashed(dir.path(), 64);
    for number in 0..20 {
        let wrong = caller("bob", &number.to_string());
        let check = auth.check(Some(&wrong), &[Perm::Execute], LOCAL);
        let ended = tokio::time::timeout(Duration::from_millis(1), check).await;
        assert!(ended.is_err());
    }
    assert_eq!(may_execute(&auth, "bob", "right").await, Access::Allowed);
    let checks = source(&auth).metrics.get(Counter::AuthHashChecks);
    assert!(checks < 10, "{checks}");
}

#[test]
fn debug_hides_the_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    fs::write(&path, one_user("bob", "secret")).unwrap();
    let shown = format!(
        "{:?} {:?}",
        open(&path, "", 8).unwrap(),
        caller("bob", "secret")
    );
    assert!(!shown.contains("secret"), "{shown}");
}

//! Files, good and bad, and what they allow.
use super::*;
use crate::auth::hash::{Algorithm, hash_password};

fn parse(text: &str) -> Result<Rules, String> {
    Rules::parse(text.as_bytes(), "node", &KEY)
}

static KEY: std::sync::LazyLock<Key> = std::sync::LazyLock::new(Key::random);

fn caller(name: &str, password: &str) -> Credentials {
    Credentials {
        username: name.to_owned(),
        password: password.to_owned(),
    }
}

/// As `Auth` decides, without its limits.
fn allows(rules: &Rules, name: &str, password: &str, perm: Perm) -> bool {
    if rules.everyone_may(&[perm]) {
        return true;
    }
    let right = match rules.examine(&caller(name, password), &KEY) {
        Finding::Certain(right) => right,
        Finding::Work(work) => work.matches(password),
    };
    right && rules.user_may(name, &[perm])
}

#[test]
fn rules_in_their_order() {
    let hash = hash_password("hashed", Algorithm::Argon2id).unwrap();
    let file = format!(
        r#"[
        {{"username":"bob","password":"secret1","perms":["all"],"comment":"unknown key"}},
        {{"username":"alice","password":"secret2","perms":["query","join-read-replica","future"]}},
        {{"username":"eve","password":"secret3"}},
        {{"username":"carl","password":"{hash}","previous_passwords":["old","older"],"perms":["execute"]}},
        {{"username":"*","perms":["status","ready"]}}
    ]"#
    );
    let rules = parse(&file).unwrap();
    #[rustfmt::skip]
    let cases = [
        ("", "", Perm::Status, true),
        ("", "", Perm::Query, false),
        ("bob", "wrong", Perm::Ready, true),
        ("bob", "secret1", Perm::Execute, true),
        ("bob", "secret1", Perm::Ui, true),
        ("bob", "secret", Perm::Execute, false),
        ("bob", "secret11", Perm::Execute, false),
        ("bob", "", Perm::Execute, false),
        ("bob", "secret1\0", Perm::Execute, false),
        ("Bob", "secret1", Perm::Execute, false),
        ("alice", "secret2", Perm::Query, true),
        ("alice", "secret2", Perm::JoinReadOnly, true),
        ("alice", "secret2", Perm::Join, false),
        ("alice", "secret2", Perm::Execute, false),
        // No `perms`: no permissions of its own, and none of the entry before.
        ("eve", "secret3", Perm::Query, false),
        ("eve", "secret3", Perm::Status, true),
        ("carl", "hashed", Perm::Execute, true),
        ("carl", "old", Perm::Execute, true),
        ("carl", "older", Perm::Execute, true),
        ("carl", "hashed", Perm::Query, false),
        ("carl", "oldest", Perm::Execute, false),
        // A hash is no password.
        ("carl", &hash, Perm::Execute, false),
        // Another user's password, with which who is not known is compared.
        ("nobody", "hashed", Perm::Execute, false),
        ("eve", "hashed", Perm::Execute, false),
        ("nobody", "", Perm::Execute, false),
        ("*", "", Perm::Execute, false),
    ];
    for (name, password, perm, expected) in cases {
        assert_eq!(
            allows(&rules, name, password, perm),
            expected,
            "{name:?} {password:?} {perm:?}"
        );
    }
    assert_eq!(
        rules.warnings,
        [r#"permission "future" of user "alice" is not known and gives nothing"#]
    );
}

#[test]
fn who_is_not_known_costs_what_others_cost() {
    let work = |rules: &Rules, name: &str| match rules.examine(&caller(name, "x"), &KEY) {
        Finding::Certain(_) => 0,
        Finding::Work(work) => work.hashes.len(),
    };
    let hash = hash_password("x y", Algorithm::Argon2id).unwrap();
    let hashed =
        format!(r#"{{"username":"a","password":"{hash}","previous_passwords":["{hash}"]}}"#);
    let plain = r#"{"username":"b","password":"secret"}"#;
    let mixed = parse(&format!("[{hashed},{plain}]")).unwrap();
    for name in ["a", "b", "nobody", ""] {
        assert_eq!(work(&mixed, name), 2, "{name}");
    }
    let plain = parse(&format!("[{plain}]")).unwrap();
    for name in ["b", "nobody"] {
        assert_eq!(work(&plain, name), 0, "{name}");
    }
}

#[test]
fn everyone_may_have_everything() {
    let rules = parse(r#"[{"username":"*","password":"","perms":["all"]}]"#).unwrap();
    assert!(rules.everyone_may(&Perm::ALL));
    let none = parse("[]").unwrap();
    assert!(!none.everyone_may(&[Perm::Ready]));
}

#[test]
fn the_own_password_is_kept_and_others_are_not() {
    let rules = parse(
        r#"[{"username":"node","password":"n","perms":["join"]},{"username":"x","password":"y"}]"#,
    );
    let rules = rules.unwrap();
    assert_eq!(rules.own_password("node"), Some("n"));
    assert_eq!(rules.own_password("x"), None);
    assert!(rules.has_user("x") && !rules.has_user("z"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn errors_name_the_user_and_never_the_password() {
    let hash = hash_password("x", Algorithm::Argon2id).unwrap();
    let own = format!(r#"[{{"username":"node","password":"{hash}"}}]"#);
    let many = r#"[{"username":"bob","password":"a","previous_passwords":["1","2","3","4","5"]}]"#;
    for (text, why) in [
        (
            "",
            "not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            "[{]",
            "not valid JSON: key must be a string at line 1 column 3",
        ),
        (
            "[{\"username\":\"bob\",\"password\":\"hunter2\"} x]",
            "not valid JSON",
        ),
        ("{}", "must be a JSON array"),
        ("null", "must be a JSON array"),
        ("[7]", "user 1 of the file must be a JSON object"),
        (
            r#"[{"password":"hunter2"}]"#,
            r#"user 1 of the file has no "username""#,
        ),
        (
            r#"[{"username":"","password":"hunter2"}]"#,
            r#"has no "username""#,
        ),
        (
            r#"[{"username":1}]"#,
            r#""username" of user 1 of the file must be a string"#,
        ),
        (r#"[{"username":"bob"}]"#, r#"user "bob" has no "password""#),
        (
            r#"[{"username":"bob","password":""}]"#,
            r#"user "bob" has no "password""#,
        ),
        (
            r#"[{"username":"bob","password":8675309}]"#,
            r#""password" of user "bob" must be a string"#,
        ),
        (
            r#"[{"username":"bob","password":"a","perms":"all"}]"#,
            r#""perms" of user "bob" must be"#,
        ),
        (
            r#"[{"username":"bob","password":"a","perms":[8675309]}]"#,
            r#""perms" of user "bob" must be"#,
        ),
        (
            r#"[{"username":"bob","password":"a","previous_passwords":"hunter2"}]"#,
            "must be an array of strings",
        ),
        (
            r#"[{"username":"bob","password":"a","previous_passwords":[""]}]"#,
            "not empty",
        ),
        (many, "at most 4"),
        (
            r#"[{"username":"bob","password":"a"},{"username":"bob","password":"b"}]"#,
            r#"user "bob" is listed twice"#,
        ),
        (
            r#"[{"username":"*","perms":["all"]},{"username":"*"}]"#,
            r#"user "*" is listed twice"#,
        ),
        (r#"[{"username":"a:b","password":"x"}]"#, "colon"),
        (
            r#"[{"username":"a\u0000b","password":"x"}]"#,
            "control character",
        ),
        (
            r#"[{"username":"bob","password":"$argon2id$hunter2"}]"#,
            r#""password" of user "bob" is not a well-formed argon2id hash"#,
        ),
        (
            r#"[{"username":"bob","password":"x","previous_passwords":["$2b$hunter2"]}]"#,
            r#"a previous password of user "bob" is not a well-formed bcrypt hash"#,
        ),
        (&own, "must be in clear text"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        assert!(
            !error.contains("hunter2") && !error.contains("8675309"),
            "{error}"
        );
    }
}

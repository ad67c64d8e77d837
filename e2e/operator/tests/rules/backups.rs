//! Specs of backups, schedules, archives and restores that the API server must reject, and changes of them.

/// Kind, a valid spec of it, a change to that (null removes a field), and a part of the rejection's message.
pub(crate) const NEW: &[(&str, &str, &str, &str)] = &[
    (
        "RqliteBackup",
        BACKUP,
        r#"{"clusterRef":null}"#,
        "spec.clusterRef: Required value",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{}}"#,
        "a target is one place: give exactly one of s3, gcs, azure and volume",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"abc"},"volume":{"claimName":"c"}}}"#,
        "a target is one place",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"ab"}}}"#,
        "should be at least 3 chars long",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"abc","endpoint":"http://user:secret@store"}}}"#,
        "endpoint in body should match",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"abc","credentialsSecret":{"name":"Not A Name"}}}}"#,
        "credentialsSecret.name in body should match",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"volume":{"claimName":"c","path":"a/../b"}}}"#,
        "write it without a leading '/' and without '..'",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"abc","prefix":"a/../b"}}}"#,
        "a prefix is a path of names",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":null,"gcs":{"bucket":"abc","prefix":"a//b"}}}"#,
        "a prefix is a path of names",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"target":{"s3":{"bucket":"abc/../def"}}}"#,
        "bucket in body should match",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"archive":{"target":{"s3":null,"azure":{"account":"abc","container":"abc","prefix":".."}}}}"#,
        "a prefix is a path of names",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"archive":{"target":{"gcs":{"bucket":"abc"}},"drill":{"schedule":"@daily","scratch":{"size":"much"}}}}"#,
        "drill.scratch.size in body should match",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"deletionPolicy":"Forget"}"#,
        r#"supported values: "Retain", "Delete""#,
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"retries":11}"#,
        "less than or equal to 10",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"timeout":"soon"}"#,
        "spec.timeout in body should match",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"schedule":"every day"}"#,
        "spec.schedule in body should match",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"schedule":null}"#,
        "spec.schedule: Required value",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"timeZone":"../etc/passwd"}"#,
        "spec.timeZone in body should match",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"retention":{}}"#,
        "retention without a rule says nothing",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"retention":{"count":0}}"#,
        "greater than or equal to 1",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"concurrencyPolicy":"Queue"}"#,
        "Unsupported value",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"confirm":null}"#,
        "repeat the cluster's name in confirm",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"confirm":"other"}"#,
        "repeat the cluster's name in confirm",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"toTime":"2026-11-29T08:00:00Z"}"#,
        "give exactly one of toTime and toIndex",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"toIndex":null}"#,
        "give exactly one of toTime and toIndex",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"toIndex":0}"#,
        "greater than or equal to 1",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"archive":{"target":{"volume":{"claimName":"c"}},"every":"999ms"}}"#,
        "set it to 1s or more",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"archive":{}}"#,
        "spec.archive.target: Required value",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"bootstrap":{"restore":{}}}"#,
        "give exactly one of backup, object (with target) and archive",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"bootstrap":{"restore":{"backup":{"name":"b"},"archive":{"cluster":"c"}}}}"#,
        "a cluster begins with one thing",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"bootstrap":{"restore":{"object":"f.sqlite"}}}"#,
        "give target with them, and only with them",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"bootstrap":{"restore":{"archive":{"cluster":"c"},"target":{"s3":{"bucket":"abc"}}}}}"#,
        "give target with them, and only with them",
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"bootstrap":{"restore":{"archive":{"cluster":"c","toIndex":5,"toTime":"2026-11-29T08:00:00Z"}}}}"#,
        "give toTime or toIndex, or neither",
    ),
];

/// A valid RqliteBackup.
pub(crate) const BACKUP: &str =
    r#"{"clusterRef":{"name":"demo"},"target":{"s3":{"bucket":"abc"}}}"#;
/// A valid RqliteScheduledBackup.
pub(crate) const SCHEDULE: &str = r#"{"clusterRef":{"name":"demo"},"schedule":"@daily"}"#;
/// A valid RqliteRestore.
pub(crate) const RESTORE: &str =
    r#"{"clusterRef":{"name":"demo"},"toIndex":5,"confirm":"demo","dryRun":false}"#;

/// Kind, a valid spec, a change that is refused, and a part of the rejection's message.
pub(crate) const CHANGED: &[(&str, &str, &str, &str)] = &[
    (
        "RqliteBackup",
        BACKUP,
        r#"{"vacuum":true}"#,
        "create another RqliteBackup",
    ),
    (
        "RqliteBackup",
        BACKUP,
        r#"{"deletionPolicy":"Delete"}"#,
        "except for deletionPolicy to Retain",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"clusterRef":{"name":"other"}}"#,
        "create another RqliteScheduledBackup",
    ),
    (
        "RqliteRestore",
        RESTORE,
        r#"{"toIndex":6}"#,
        "create another RqliteRestore",
    ),
];

/// Kind, a valid spec, and a change that is accepted.
pub(crate) const ALLOWED: &[(&str, &str, &str)] = &[
    // A cluster that has not begun follows its spec; to one that has, the field says nothing any more.
    (
        "RqliteCluster",
        r#"{"bootstrap":{"restore":{"backup":{"name":"b"}}}}"#,
        r#"{"bootstrap":{"restore":{"backup":{"name":"c"}}}}"#,
    ),
    ("RqliteBackup", BACKUP, "{}"),
    (
        "RqliteBackup",
        r#"{"clusterRef":{"name":"demo"},"target":{"s3":{"bucket":"abc","prefix":"/a.b/..c/"}},"timeout":"5m","deletionPolicy":"Delete"}"#,
        r#"{"deletionPolicy":"Retain"}"#,
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        r#"{"schedule":"*/5 2-4 * JAN,feb Mon-Fri","timeZone":"America/Argentina/Buenos_Aires","retention":{"count":7,"daily":7,"weekly":4}}"#,
    ),
    (
        "RqliteCluster",
        "{}",
        r#"{"archive":{"target":{"gcs":{"bucket":"abc"}},"every":"1s","drill":{"schedule":"0 3 * * *"}}}"#,
    ),
    (
        "RqliteCluster",
        r#"{"archive":{"target":{"gcs":{"bucket":"abc"}}}}"#,
        r#"{"archive":null}"#,
    ),
];

/// Kind, a name, and a part of the rejection's message.
pub(crate) const NAMES: &[(&str, &str, &str, &str)] = &[
    (
        "RqliteBackup",
        BACKUP,
        "a2345678901234567890123456789012345678901234567890123",
        "at most 52 characters",
    ),
    (
        "RqliteScheduledBackup",
        SCHEDULE,
        "a2345678901234567890123456789012345678",
        "at most 37 characters",
    ),
];

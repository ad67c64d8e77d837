//! Specs that the API server must reject, with their messages, and specs that it must accept. Specs are JSON.

/// A new cluster's spec, and a part of the rejection's message.
pub(crate) const NEW_CLUSTERS: &[(&str, &str)] = &[
    (
        r#"{"replicas":0}"#,
        "spec.replicas in body should be greater than or equal to 1",
    ),
    (
        r#"{"replicas":12}"#,
        "spec.replicas in body should be less than or equal to 9",
    ),
    (
        r#"{"serviceAccountName":""}"#,
        "leave it out to let the operator create an account",
    ),
    (
        r#"{"image":{"repository":"registry.example.com/rqlite"}}"#,
        "add image.tag or image.digest",
    ),
    (
        r#"{"image":{"tag":"a b"}}"#,
        "spec.image.tag in body should match",
    ),
    (
        r#"{"image":{"digest":"sha256:short"}}"#,
        "spec.image.digest in body should match",
    ),
    (
        r#"{"image":{"pullPolicy":"Sometimes"}}"#,
        r#"supported values: "Always", "IfNotPresent", "Never""#,
    ),
    (
        r#"{"storage":{"size":"1.5Gi"}}"#,
        "spec.storage.size in body should match",
    ),
    (
        r#"{"storage":{"size":"-1Gi"}}"#,
        "spec.storage.size in body should match",
    ),
    (
        r#"{"bootstrap":{"timeout":"soon"}}"#,
        "spec.bootstrap.timeout in body should match",
    ),
    (
        r#"{"readReplicas":{"replicas":51}}"#,
        "should be less than or equal to 50",
    ),
    (
        r#"{"readReplicas":{"replicas":2,"autoscaled":true}}"#,
        "remove readReplicas.replicas, or set autoscaled to false",
    ),
    (
        r#"{"config":{"raft":{"heartbeatTimeout":"2s"}}}"#,
        "raise electionTimeout or lower heartbeatTimeout",
    ),
    (
        r#"{"config":{"raft":{"leaderLeaseTimeout":"2s"}}}"#,
        "lower leaderLeaseTimeout",
    ),
    (
        r#"{"config":{"raft":{"heartbeatTimeout":"50ms"}}}"#,
        "heartbeatTimeout must be at least 100ms",
    ),
    (
        r#"{"config":{"raft":{"snapshotThreshold":1}}}"#,
        "should be greater than or equal to 64",
    ),
    (
        r#"{"config":{"extraArgs":["loud"]}}"#,
        "spec.config.extraArgs[0] in body should match",
    ),
    (
        r#"{"config":{"extraEnv":[{"name":"POD_NAME","value":"x"}]}}"#,
        "remove it from extraEnv",
    ),
    (
        r#"{"config":{"extraEnv":[{"name":"A"},{"name":"A"}]}}"#,
        "Duplicate value",
    ),
    (
        r#"{"config":{"extraEnv":[{"name":"A","value":"x","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]}}"#,
        "give value or valueFrom, not both",
    ),
    (
        r#"{"config":{"extraEnv":[{"name":"A","valueFrom":{}}]}}"#,
        "give exactly one of secretKeyRef and configMapKeyRef",
    ),
    (r#"{"update":{"minReady":"1h"}}"#, "raise progressDeadline"),
    (
        r#"{"terminationGracePeriodSeconds":5}"#,
        "should be greater than or equal to 10",
    ),
    (
        r#"{"clusterDomain":"-x"}"#,
        "spec.clusterDomain in body should match",
    ),
    (
        r#"{"networkPolicy":{"clients":"Everywhere","clientFrom":[{"podSelector":{}}]}}"#,
        "remove clientFrom, or set clients to Namespace or Listed",
    ),
    (
        r#"{"services":{"client":{"type":"LoadBalancer"}},"authentication":{"mode":"Disabled"}}"#,
        "needs users and TLS: set authentication.mode to Required",
    ),
    (
        r#"{"services":{"read":{"type":"NodePort"}},"tls":{"clients":{"mode":"Disabled"}}}"#,
        "or use type ClusterIP",
    ),
    (
        r#"{"networkPolicy":{"clients":"Nobody"}}"#,
        r#"supported values: "Listed", "Namespace", "Everywhere""#,
    ),
    (
        r#"{"memberReplacement":{"after":"721h"}}"#,
        "lower it, or use policy Manual",
    ),
    (
        r#"{"quorumRecovery":{"policy":"Automatic"},"replicas":1}"#,
        "raise replicas, or use Manual",
    ),
    (
        r#"{"quorumRecovery":{"automaticAfter":"1m"}}"#,
        "raise automaticAfter or lower detectAfter",
    ),
    (
        r#"{"quorumRecovery":{"acceptDataLoss":true}}"#,
        "only means something with policy Automatic",
    ),
    (
        r#"{"reaping":{"voterTimeout":"59m"}}"#,
        "voterTimeout is shorter than an hour",
    ),
    (
        r#"{"reaping":{"readReplicaTimeout":"30s"}}"#,
        "readReplicaTimeout is shorter than a minute",
    ),
    (r#"{"replica":3}"#, r#"unknown field "spec.replica""#),
    (
        r#"{"services":{"client":{"enabled":false}}}"#,
        "services.client cannot be disabled",
    ),
    (
        r#"{"services":{"client":{"loadBalancerSourceRanges":["10.0.0.0/8"]}}}"#,
        "need type LoadBalancer: set type, or remove them",
    ),
    (
        r#"{"services":{"leader":{"nodePort":30001}}}"#,
        "need type NodePort or LoadBalancer: set type, or remove them",
    ),
    (
        r#"{"services":{"client":{"type":"LoadBalancer","healthCheckNodePort":30001}}}"#,
        "healthCheckNodePort needs externalTrafficPolicy Local",
    ),
    (
        r#"{"services":{"read":{"sessionAffinitySeconds":60}}}"#,
        "sessionAffinitySeconds needs sessionAffinity ClientIP",
    ),
    (
        r#"{"services":{"ipFamilies":["IPv4","IPv4"]}}"#,
        "ipFamilies names a family twice",
    ),
    (
        r#"{"services":{"client":{"ipFamilies":["IPv5"]}}}"#,
        r#"supported values: "IPv4", "IPv6""#,
    ),
    (
        r#"{"services":{"client":{"externalIPs":["10.0.0.1"]}}}"#,
        r#"unknown field "spec.services.client.externalIPs""#,
    ),
    (
        r#"{"pods":{"volumes":[{"name":"data","emptyDir":{}}]}}"#,
        "pods.volumes has a volume named data, cluster or tmp",
    ),
    (
        r#"{"pods":{"volumeMounts":[{"name":"data","mountPath":"/x"}]}}"#,
        "pods.volumeMounts mounts data, cluster or tmp",
    ),
    (
        r#"{"pods":{"volumeMounts":[{"name":"x","mountPath":"/rqlite/data"}]}}"#,
        "pods.volumeMounts has a mountPath at or below /rqlite",
    ),
    (
        r#"{"pods":{"volumeMounts":[{"name":"x","mountPath":"/"}]}}"#,
        "pods.volumeMounts has a mountPath at or below /rqlite",
    ),
    (
        r#"{"pods":{"sidecars":[{"name":"rqlited","image":"x"}]}}"#,
        "pods.sidecars has a container named rqlited or prepare",
    ),
    (
        r#"{"pods":{"initContainers":[{"name":"prepare","image":"x"}]}}"#,
        "pods.initContainers has a container named rqlited or prepare",
    ),
    (
        r#"{"pods":{"sidecars":[{"name":"x","imagee":"x"}]}}"#,
        r#"unknown field "spec.pods.sidecars[0].imagee""#,
    ),
    (
        r#"{"podMetadata":{"labels":{"rqlite.dev/role":"leader"}}}"#,
        "podMetadata.labels has a key of rqlite.dev/",
    ),
    (
        r#"{"podMetadata":{"annotations":{"rqlite.dev/update-now":"true"}}}"#,
        "podMetadata.annotations has a key of rqlite.dev/",
    ),
    (
        r#"{"podSecurity":{"identity":"Platform","runAsUser":7}}"#,
        "remove runAsUser, runAsGroup and fsGroup, or set identity to Fixed",
    ),
    (
        r#"{"podSecurity":{"runAsUser":0}}"#,
        "should be greater than or equal to 1",
    ),
    (
        r#"{"serviceMesh":"Consul"}"#,
        r#"supported values: "Istio", "Linkerd""#,
    ),
    (
        r#"{"storage":{"ephemeral":{}},"hibernated":true}"#,
        "so it cannot be hibernated: delete it instead",
    ),
    (
        r#"{"storage":{"ephemeral":{}},"replicas":2}"#,
        "storage.ephemeral with 2 replicas loses all data with any one pod",
    ),
    (
        r#"{"storage":{"ephemeral":{},"storageClassName":"a"}}"#,
        "remove storageClassName or ephemeral",
    ),
    (
        r#"{"storage":{"ephemeral":{}},"quorumRecovery":{"policy":"Automatic"}}"#,
        "use quorumRecovery.policy Manual",
    ),
    (
        r#"{"users":[{"name":"App","permissions":["query"]}]}"#,
        "use lower-case letters, digits and '-'",
    ),
    (
        r#"{"users":[{"name":"*","permissions":["query"]}]}"#,
        "what callers without a user may do is authentication.anonymousPermissions",
    ),
    (
        r#"{"users":[{"name":"rqlite-node","permissions":["query"]}]}"#,
        "choose another name",
    ),
    (
        r#"{"users":[{"name":"app","permissions":["query"]},{"name":"app","permissions":["all"]}]}"#,
        "Duplicate value",
    ),
    (
        r#"{"users":[{"name":"app","permissions":["write"]}]}"#,
        r#"supported values: "all", "execute", "query""#,
    ),
    (
        r#"{"users":[{"name":"app","permissions":[]}]}"#,
        "should have at least 1 items",
    ),
    (
        r#"{"users":[{"name":"app"}]}"#,
        "spec.users[0].permissions: Required value",
    ),
    (
        r#"{"users":[{"name":"app","permissions":["query"],"passwordSecret":{"name":"s"}}]}"#,
        "spec.users[0].passwordSecret.key: Required value",
    ),
    (
        r#"{"authentication":{"mode":"Optional"}}"#,
        r#"supported values: "Required", "Disabled""#,
    ),
    (
        r#"{"authentication":{"anonymousPermissions":["all"]}}"#,
        "let everybody who reaches the port replace the data",
    ),
    (
        r#"{"tls":{"nodes":{"mode":"Optional"}}}"#,
        r#"supported values: "Required", "Disabled""#,
    ),
    (
        r#"{"tls":{"nodes":{"mode":"Disabled","certificate":{"secretName":"s"}}}}"#,
        "remove tls.nodes.certificate, or set the mode to Required",
    ),
    (
        r#"{"tls":{"clients":{"mode":"Disabled","certificate":{"issuerRef":{"name":"i"}}}}}"#,
        "remove tls.clients.certificate, or set the mode to Optional or Required",
    ),
    (
        r#"{"tls":{"nodes":{"certificate":{}}}}"#,
        "give either issuerRef (cert-manager) or secretName",
    ),
    (
        r#"{"tls":{"clients":{"certificate":{"secretName":"s","issuerRef":{"name":"i"}}}}}"#,
        "give either issuerRef (cert-manager) or secretName",
    ),
    (
        r#"{"tls":{"clients":{"requireClientCertificate":true}}}"#,
        "set tls.clients.mode to Required",
    ),
    (
        r#"{"tls":{"clients":{"extraNames":["db.example.com"],"certificate":{"secretName":"s"}}}}"#,
        "remove extraNames",
    ),
    (
        r#"{"tls":{"clients":{"extraNames":["a b"]}}}"#,
        "spec.tls.clients.extraNames[0] in body should match",
    ),
    (
        r#"{"tls":{"nodes":{"certificate":{"issuerRef":{"kind":"Issuer"}}}}}"#,
        "spec.tls.nodes.certificate.issuerRef.name: Required value",
    ),
    (
        r#"{"bootstrap":{"restore":{}}}"#,
        "give exactly one of backup, object (with target) and archive",
    ),
    (
        r#"{"bootstrap":{"restore":{"backup":{"name":"b"},"archive":{"cluster":"c"}}}}"#,
        "give exactly one of backup, object (with target) and archive",
    ),
    (
        r#"{"bootstrap":{"restore":{"object":"x"}}}"#,
        "give target with them, and only with them",
    ),
    (
        r#"{"bootstrap":{"restore":{"archive":{"cluster":"c"},"target":{"s3":{"bucket":"bkt"}}}}}"#,
        "give target with them, and only with them",
    ),
    (
        r#"{"bootstrap":{"restore":{"object":"../x","target":{"s3":{"bucket":"bkt"}}}}}"#,
        "object is a name below the target's prefix",
    ),
    (
        r#"{"bootstrap":{"restore":{"object":"x","target":{"s3":{"bucket":"bkt"}},"encryption":{"keySecret":{"name":"s","key":"k"}}}}}"#,
        "encryption is the key of an archive in target",
    ),
    (
        r#"{"bootstrap":{"restore":{"archive":{"cluster":"c","toIndex":1,"toTime":"2026-01-01T00:00:00Z"}}}}"#,
        "a point is a time or an index",
    ),
    (
        r#"{"bootstrap":{"restore":{"object":"x","target":{"s3":{"bucket":"bkt"},"volume":{"claimName":"c"}}}}}"#,
        "a target is one place",
    ),
    (
        r#"{"bootstrap":{"restore":{"object":"x","target":{"volume":{"claimName":"c","path":"../../etc"}}}}}"#,
        "volume.path is a directory within the claim",
    ),
];

/// At least one flag of every family that the operator sets itself, with one and with two dashes.
pub(crate) const OWNED_FLAGS: &[&str] = &[
    "-node-id=x",
    "--node-id",
    "-http-addr=:1",
    "-raft-adv-addr=h:1",
    "-join=h",
    "-join-as=x",
    "--bootstrap-expect=1",
    "-disco-mode=dns",
    "-auth=/f",
    "-http-cert=/f",
    "-node-key=/f",
    "-node-verify-client",
    "-node-tls-stage=use",
    "-http-tls-optional",
    "-raft-non-voter=true",
    "-raft-reap-node-timeout=1h",
    "-raft-cluster-remove-shutdown=true",
    "-auto-restore=/f",
    "-archive=/f",
    "-archive-key-file=/f",
];
/// The message for each of them.
pub(crate) const OWNED_FLAG_REFUSAL: &str = "extraArgs holds a flag that the operator sets itself";

/// A name, and a part of the rejection's message.
pub(crate) const NAMES: &[(&str, &str)] = &[
    (
        "a234567890123456789012345678901234567890123456",
        "the name may have at most 45 characters",
    ),
    ("1st", "begin it with a letter"),
    ("with.dot", "begin it with a letter"),
];

/// A spec, a spec that replaces it, and a part of the rejection's message.
pub(crate) const CHANGED_CLUSTERS: &[(&str, &str, &str)] = &[
    (
        r#"{"clusterDomain":"cluster.local"}"#,
        r#"{"clusterDomain":"example.org"}"#,
        "clusterDomain is part of every node's address",
    ),
    (
        "{}",
        r#"{"storage":{"ephemeral":{}}}"#,
        "storage.ephemeral cannot be added, changed or removed",
    ),
    (
        r#"{"storage":{"ephemeral":{}}}"#,
        "{}",
        "storage.ephemeral cannot be added, changed or removed",
    ),
    (
        r#"{"storage":{"ephemeral":{"sizeLimit":"1Gi"}}}"#,
        r#"{"storage":{"ephemeral":{"medium":"Memory"}}}"#,
        "storage.ephemeral cannot be added, changed or removed",
    ),
    (
        r#"{"storage":{"size":"10Gi"}}"#,
        r#"{"storage":{"size":"9Gi"}}"#,
        "a volume cannot shrink: keep the size, or",
    ),
    (
        "{}",
        r#"{"storage":{"size":"1000M"}}"#,
        "a volume cannot shrink: keep the size, or",
    ),
    (
        r#"{"storage":{"storageClassName":"a"}}"#,
        r#"{"storage":{"storageClassName":"b"}}"#,
        "storageClassName cannot be changed",
    ),
    (
        r#"{"storage":{"storageClassName":"a"}}"#,
        "{}",
        "storageClassName cannot be changed",
    ),
    (
        "{}",
        r#"{"storage":{"storageClassName":"a"}}"#,
        "storageClassName cannot be changed",
    ),
    (
        r#"{"readReplicas":{"storage":{"size":"2Gi"}}}"#,
        r#"{"readReplicas":{"storage":{"size":"1Gi"}}}"#,
        "keep the size of the read replicas' volumes",
    ),
    (
        r#"{"readReplicas":{"storage":{"storageClassName":"a"}}}"#,
        r#"{"readReplicas":{"storage":{}}}"#,
        "readReplicas.storage.storageClassName cannot be changed",
    ),
    (
        r#"{"quorumRecovery":{"policy":"Automatic"}}"#,
        r#"{"quorumRecovery":{"policy":"Automatic"},"replicas":1}"#,
        "raise replicas, or use Manual",
    ),
];

/// A spec, and one that may replace it.
pub(crate) const ALLOWED_CHANGES: &[(&str, &str)] = &[
    ("{}", r#"{"replicas":5}"#),
    (
        "{}",
        r#"{"authentication":{"mode":"Required","anonymousPermissions":["ready"]},"users":[]}"#,
    ),
    (
        r#"{"authentication":{"mode":"Required"}}"#,
        r#"{"authentication":{"mode":"Disabled"},"users":[{"name":"a-1","permissions":["all"],"passwordSecret":{"name":"s","key":"k"}}]}"#,
    ),
    (
        r#"{"storage":{"size":"1Gi"}}"#,
        r#"{"storage":{"size":"2Gi"}}"#,
    ),
    (
        r#"{"storage":{"size":"1024Mi"}}"#,
        r#"{"storage":{"size":"1Gi"}}"#,
    ),
    (
        "{}",
        r#"{"readReplicas":{"replicas":2,"storage":{"size":"1Gi"}}}"#,
    ),
    (
        r#"{"readReplicas":{"replicas":2}}"#,
        r#"{"readReplicas":{"autoscaled":true}}"#,
    ),
    (
        "{}",
        r#"{"config":{"extraArgs":["-raft-log-level=INFO","--node-timeout=5s","-joiner"]}}"#,
    ),
    (
        "{}",
        r#"{"hibernated":true,"paused":true,"deletionProtection":true}"#,
    ),
    ("{}", r#"{"image":{"tag":"1.2"}}"#),
    (r#"{"clusterDomain":"cluster.local"}"#, "{}"),
    (
        "{}",
        r#"{"services":{"client":{"type":"LoadBalancer","loadBalancerClass":"x","externalTrafficPolicy":"Local","healthCheckNodePort":30001,"ipFamilies":["IPv6","IPv4"],"ipFamilyPolicy":"PreferDualStack"},"leader":{"enabled":false},"read":{"type":"NodePort","nodePort":30002}}}"#,
    ),
    (
        "{}",
        r#"{"pods":{"volumes":[{"name":"certs","secret":{"secretName":"s"}}],"volumeMounts":[{"name":"certs","mountPath":"/certs"}],"sidecars":[{"name":"s","image":"x","ports":[{"containerPort":9000}]}],"initContainers":[{"name":"i","image":"x","restartPolicy":"Always"}],"dnsConfig":{"options":[{"name":"ndots","value":"2"}]}},"podSecurity":{"identity":"Platform"},"serviceMesh":"Istio"}"#,
    ),
    (
        "{}",
        r#"{"quorumRecovery":{"policy":"Automatic","acceptDataLoss":true}}"#,
    ),
    (
        r#"{"tls":{"nodes":{"mode":"Disabled"},"clients":{"mode":"Disabled"}}}"#,
        r#"{"tls":{"nodes":{"mode":"Required","certificate":{"issuerRef":{"name":"i","kind":"ClusterIssuer"}}},"clients":{"mode":"Required","requireClientCertificate":true,"extraNames":["db.example.com","10.0.0.1","fd00::1","*.db.example.com"]}}}"#,
    ),
];

/// A valid recovery.
pub(crate) const RECOVERY: &str = r#"{"clusterRef":{"name":"demo"},"reason":"a test"}"#;

/// A change to [`RECOVERY`] (null removes a field), and a part of the rejection's message.
pub(crate) const NEW_RECOVERIES: &[(&str, &str)] = &[
    (
        r#"{"reason":""}"#,
        "spec.reason in body should be at least 1 chars long",
    ),
    (r#"{"reason":null}"#, "spec.reason: Required value"),
    (r#"{"clusterRef":null}"#, "spec.clusterRef: Required value"),
    (
        r#"{"mode":"Guess"}"#,
        r#"supported values: "SingleSurvivor", "RewriteAddresses", "FromArchive""#,
    ),
    (
        r#"{"mode":"FromArchive","survivor":"demo-0"}"#,
        "mode FromArchive is for a cluster without any survivor",
    ),
    (
        r#"{"toIndex":7}"#,
        "toTime and toIndex are points of the archive",
    ),
    (
        r#"{"mode":"FromArchive","toIndex":7,"toTime":"2026-01-01T00:00:00Z"}"#,
        "give toTime or toIndex, or neither",
    ),
    (
        r#"{"mode":"RewriteAddresses","survivor":"demo-0"}"#,
        "remove survivor, or use mode SingleSurvivor",
    ),
    (
        r#"{"mode":"RewriteAddresses","ignoreMembers":["demo-0"]}"#,
        "remove ignoreMembers, or use mode SingleSurvivor",
    ),
    (
        r#"{"ttlSecondsAfterFinished":-1}"#,
        "should be greater than or equal to 0",
    ),
    (
        r#"{"databaseCheckTimeout":"soon"}"#,
        "spec.databaseCheckTimeout in body should match",
    ),
    (
        r#"{"clusterRef":{"name":"demo","uid":""}}"#,
        "spec.clusterRef.uid in body should be at least 1 chars long",
    ),
    (
        r#"{"survivor":"demo-0","ignoreMembers":["demo-0"]}"#,
        "the survivor is also in ignoreMembers",
    ),
];

/// Changes to an existing [`RECOVERY`]; all are rejected.
pub(crate) const CHANGED_RECOVERIES: &[&str] = &[
    r#"{"acceptDataLoss":true}"#,
    r#"{"reason":"another"}"#,
    r#"{"dryRun":true}"#,
];

# Everything that a developer does. `just verify` never writes; `just fix` does.

# List the recipes.
default:
    @just --list

# The first rung, under a minute when warm: unit tests, the planner's model, the rules of the repository. No processes, no root.
quick:
    cargo test --quiet --workspace --lib --bins --exclude e2e --exclude e2e-kubernetes --exclude e2e-operator
    cargo test --quiet -p rqlite-operator --test model
    cargo test --quiet -p e2e --test tidy

# The gate, as CI runs it: formatting, lints, licences and advisories, documentation, all tests. Read-only.
verify:
    .ci/verify

# Formatting and lints.
lint:
    .ci/verify fmt clippy

# Licences, advisories and sources of all dependencies.
deny:
    .ci/verify deny

# All tests.
test:
    .ci/verify test

# The documentation builds without warnings.
docs:
    .ci/verify docs

# Sizes, import circles, arrows against the layers, wide comments, banned words; `just figures --details` lists them.
figures *ARGS:
    cargo run --quiet -p e2e --bin figures -- {{ARGS}}

# Format and apply what clippy can fix.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Throughput, latency, memory and failover of one node and of three, against this machine's ceilings.
bench *ARGS:
    cargo build --release -p node
    cargo run --release -p e2e --bin bench -- {{ARGS}}

# What TLS and users cost: handshakes, throughput with / without TLS on kept connections (goal: 0.8), idle memory.
bench-tls *ARGS:
    just bench --only '^tls/' {{ARGS}}

# The archive's price, of a 1 GB database under 64 writers: see e2e/ARCHIVE.md.
bench-archive *ARGS:
    just bench --archive --only '^archive/' {{ARGS}}

# The fault test for as long as asked: `just fault 600` or `just fault 60 42` for a seed.
fault SECONDS="60" SEED="":
    cargo build -p node
    FAULT_SECONDS={{SECONDS}} FAULT_SEED={{SEED}} cargo test -p e2e --test cluster_fault -- --nocapture

# Power cuts on disks that lose what was not synced: `just power 3000`, or `just power 12 42` for the cluster of a seed.
power CUTS="300" SEED="":
    cargo build -p node
    POWER_CUTS={{CUTS}} POWER_SEED={{SEED}} cargo test -p e2e --test power_loss -- --nocapture

# A dump of that many MB loaded into three nodes, compared, killed, compared, joined by a fourth.
dump MB="200":
    cargo build -p node
    DUMP_MB={{MB}} cargo test -p e2e --test cluster_dump -- --nocapture

# The images, from release binaries: localhost/{rqlited,rqlite-operator,rqlite-e2e}:dev, as docker-archives in ~/.cache/rqlited-images.
images:
    cargo build --release -p node -p rqlite-shell -p rqlite-operator -p e2e-kubernetes --bins
    e2e/images/make

# Pods on a real Kubernetes made on this machine (Linux, root, no Docker), and away again.
e2e *ARGS: images
    e2e/kubernetes/suite local {{ARGS}}

# The same with Docker and kind.
e2e-kind *ARGS: images
    e2e/kubernetes/suite kind {{ARGS}}

# The operator's scenarios on such a Kubernetes: a few, `just scenarios all`, or `just scenarios 1,13,26`. Puts the rows into e2e/RESULTS.md.
scenarios WHICH="": images
    SCENARIOS={{WHICH}} WRITE_RESULTS=1 E2E_KUBERNETES=1 e2e/kubernetes/run local $(e2e/images/make | sed 's/^/--image /') \
      cargo test -p e2e-operator --test scenarios -- --nocapture

# The project's images for people with Docker; the same files as e2e/images/make puts into them.
#
#   docker build --target rqlited -t rqlited .
#   docker build --target rqlite-operator -t rqlite-operator .
#   docker run -p 4001:4001 -v rqlite:/rqlite/file rqlited
#
# For both architectures, with a registry to push to (the same stages; nothing in them depends on the architecture):
#
#   docker buildx build --platform linux/amd64,linux/arm64 --target rqlited --tag registry.example.com/rqlited:0.1.0 --push .
#
# REVISION and CREATED become labels: --build-arg REVISION=$(git rev-parse HEAD) --build-arg CREATED=$(git log -1 --format=%cI)

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
ARG REVISION=unknown
ENV RQLITED_COMMIT=$REVISION
# The caches stay on the builder, so that a second build compiles only what has changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release -p node -p rqlite-shell -p rqlite-operator -p e2e-kubernetes --bins \
    && for image in rqlited rqlite-operator; do e2e/images/root "$image" target/release "/out/$image" || exit 1; done

FROM scratch AS rqlite-operator
ARG REVISION=unknown CREATED=unknown
COPY --from=build /out/rqlite-operator /
USER 1000:1000
ENV PATH=/bin TZ=UTC
ENTRYPOINT ["/bin/rqlite-operator"]
LABEL org.opencontainers.image.title="rqlite-operator" \
      org.opencontainers.image.description="Runs RqliteCluster objects on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"

FROM scratch AS rqlited
ARG REVISION=unknown CREATED=unknown
COPY --from=build /out/rqlited /
COPY --from=build --chown=1000:0 /out/rqlited/rqlite /rqlite
USER 1000:1000
ENV PATH=/bin TZ=UTC
VOLUME /rqlite/file
EXPOSE 4001 4002
ENTRYPOINT ["/bin/rqlited", "entrypoint"]
CMD ["run"]
LABEL org.opencontainers.image.title="rqlited" \
      org.opencontainers.image.description="Raft-replicated SQLite with rqlite's HTTP API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"

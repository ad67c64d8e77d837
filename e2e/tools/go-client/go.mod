module rqlited/e2e/tools/go-client

go 1.26.0

tool rqlited/e2e/tools/go-client

require github.com/rqlite/gorqlite v0.0.0-20261020015727-7224ce2bd419

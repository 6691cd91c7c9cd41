//! Servers of the contract standard: where data is outside the mesh. Hydromesh decides the place itself and only
//! checks that the entries are whole, so that a contract it accepts is accepted elsewhere.

use crate::diag::{Diagnostic, codes};
use crate::syntax::Map;

/// Server types of ODCS v3.2 and the keys that each requires.
const TYPES: &[(&str, &[&str])] = &[
    ("api", &["location"]),
    ("athena", &["schema"]),
    ("azure", &["location", "format"]),
    ("bigquery", &["project", "dataset"]),
    ("btrieve", &["host", "database"]),
    ("clickhouse", &["host", "port", "database"]),
    ("cloudsql", &["host", "port", "database", "schema"]),
    ("custom", &[]),
    ("databricks", &["catalog", "schema"]),
    ("db2", &["host", "port", "database"]),
    ("denodo", &["host", "port"]),
    ("dremio", &["host", "port"]),
    ("duckdb", &["database"]),
    ("exasol", &["host"]),
    ("fastobjects", &["database"]),
    ("glue", &["account", "database"]),
    ("hana", &["host"]),
    ("hive", &["host", "database"]),
    ("iceberg", &["catalog", "catalogUrl"]),
    ("impala", &["host", "database"]),
    ("informix", &["host", "database"]),
    ("ingres", &["database", "host"]),
    ("kafka", &["host"]),
    ("kinesis", &[]),
    ("local", &["path", "format"]),
    ("mysql", &["host", "port", "database"]),
    ("oracle", &["host", "port", "serviceName"]),
    ("poet", &["database"]),
    ("postgres", &["host", "port", "database", "schema"]),
    ("postgresql", &["host", "port", "database", "schema"]),
    ("presto", &["host"]),
    ("pubsub", &["project"]),
    ("redshift", &["database", "schema"]),
    ("s3", &["location"]),
    ("sftp", &["location"]),
    ("snowflake", &["account", "database", "schema"]),
    ("sqlserver", &["host", "database", "schema"]),
    ("synapse", &["host", "port", "database"]),
    ("teradata", &["host"]),
    ("trino", &["host", "port", "catalog", "schema"]),
    ("vectorwise", &["database", "host"]),
    ("versant", &["database"]),
    ("vertica", &["host", "port", "database", "schema"]),
    ("zen", &["host", "database"]),
];

/// Checks the `servers` of a contract.
pub fn check(contract: &Map<'_>) {
    for node in contract.list("servers") {
        let server = Map::new(node, contract.sink());
        let _ = server.req_text("server");
        let Some(kind) = server.req_text("type") else { continue };
        let Some((_, required)) = TYPES.iter().find(|(name, _)| *name == kind) else {
            let message = format!("`{kind}` is not a server type of the standard");
            contract.sink().push(
                Diagnostic::new(codes::BAD_SERVER, contract.sink().file(), server.spot("type"), message)
                    .suggest(&kind, TYPES.iter().map(|(name, _)| *name)),
            );
            continue;
        };
        for key in *required {
            if server.opt(key).is_none() {
                let message = format!("a server of type {kind} needs `{key}`");
                contract.sink().tell(codes::BAD_SERVER, node.at, message);
            }
        }
    }
}

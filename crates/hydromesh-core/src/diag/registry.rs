//! Every code there is. A code is never reused and never changes its meaning.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Severity;

/// A stable code such as `HM-M005`.
#[derive(Clone, Copy)]
pub struct Code {
    entry: &'static Entry,
}

struct Entry {
    id: &'static str,
    severity: Severity,
    title: &'static str,
    help: &'static str,
    text: &'static str,
}

impl Code {
    /// Returns the code as written.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.entry.id
    }

    /// Returns its usual weight.
    #[must_use]
    pub const fn severity(self) -> Severity {
        self.entry.severity
    }

    /// Returns what it is about in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.entry.title
    }

    /// Returns what to do, in one line.
    #[must_use]
    pub const fn help(self) -> &'static str {
        self.entry.help
    }

    /// Returns the page on it: cause, example, fix (Markdown).
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.entry.text
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}
impl Eq for Code {}
impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Code {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id().cmp(other.id())
    }
}
impl std::hash::Hash for Code {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Returns the page on a code, in any letter case; `None` for an unknown one.
#[must_use]
pub fn explain(id: &str) -> Option<&'static str> {
    all_codes().iter().find(|code| code.id().eq_ignore_ascii_case(id)).map(|code| code.text())
}

/// Returns every code, in the order of the registry.
#[must_use]
pub fn all_codes() -> &'static [Code] {
    codes::ALL
}

macro_rules! registry {
    ($($name:ident = $id:literal $severity:ident $title:literal, $help:literal;)*) => {
        /// The codes by name.
        pub mod codes {
            use super::{Code, Entry, Severity};
            $(
                #[doc = $title]
                pub const $name: Code = Code {
                    entry: &Entry {
                        id: $id,
                        severity: Severity::$severity,
                        title: $title,
                        help: $help,
                        text: include_str!(concat!("codes/", $id, ".md")),
                    },
                };
            )*
            pub(super) const ALL: &[Code] = &[$($name),*];
        }
    };
}

registry! {
    YAML_SYNTAX = "HM-Y001" Error "the file is not valid YAML", "mend the YAML at this line; often a bracket, a quote or the indentation of the line before";
    NOT_UTF8 = "HM-Y002" Error "the file is not UTF-8 text", "save the file as UTF-8";
    DUPLICATE_KEY = "HM-Y003" Error "a key is given twice", "keep one of the two";
    YAML_LIMIT = "HM-Y004" Error "the file exceeds a limit", "split the file; the limits are 1 MiB, 32 levels and 64 aliases";
    TAB = "HM-Y005" Error "a tab indents a line", "indent with spaces; YAML forbids tabs";
    BYTE_ORDER_MARK = "HM-Y006" Warning "the file starts with a byte order mark", "save the file as UTF-8 without a byte order mark";
    UNKNOWN_KEY = "HM-Y007" Error "unknown key", "remove it, or put it under customProperties where the file's standard has them";
    WRONG_TYPE = "HM-Y008" Error "a value has the wrong type", "write the value in the type that the message names";
    MISSING_KEY = "HM-Y009" Error "a required key is missing", "add the key";
    BAD_CHOICE = "HM-Y010" Error "a value is not one of those allowed", "use one of the allowed values";
    EMPTY_FILE = "HM-Y011" Error "the file holds no document", "write the document or remove the file";

    NO_MESH = "HM-M001" Error "there is no mesh.yaml", "add mesh.yaml at the root with a name and at least one environment";
    BAD_NAME = "HM-M002" Error "a text is not a name", "use lower-case letters, digits, `-` and `_`, starting with a letter";
    NAME_DIFFERS = "HM-M003" Error "a name differs from its folder", "leave the name out or make it the folder's";
    DUPLICATE_PRODUCT = "HM-M004" Error "two products claim the same identity", "rename one of them, folder and id";
    UNKNOWN_INPUT = "HM-M005" Error "an input names a port that does not exist", "write the address of an output port: `domain/product.port`";
    CYCLE = "HM-M006" Error "products read each other in a circle", "cut one of the reads, or move the shared part into a product of its own";
    NO_SQL_FILE = "HM-M007" Error "a SQL file is missing", "add the file to the product's folder, or correct the name";
    NO_CONTRACT = "HM-M008" Error "a contract file is missing", "add `<port>.odcs.yaml` beside product.odps.yaml";
    IDLE_PORT = "HM-M009" Error "no pipeline fills an output port", "add a pipeline with this `output`, or remove the port";
    NO_SUCH_PORT = "HM-M010" Error "a pipeline names a port that the product does not have", "declare the port in product.odps.yaml, or correct the name";
    BROKEN_UPSTREAM = "HM-M011" Error "an input cannot be checked because its product is broken", "mend the upstream product first; its findings are listed beside this one";
    UNKNOWN_COLUMN = "HM-M012" Error "a pipeline or port names a column that the contract does not have", "use a column of the contract, or add it there";
    BAD_CRON = "HM-M013" Error "a cron expression is not valid", "write five fields: minute hour day-of-month month day-of-week";
    BAD_TIMEZONE = "HM-M014" Error "a time zone is not known", "use an IANA name such as `Europe/Zurich` or `UTC`";
    BAD_DURATION = "HM-M015" Error "a duration is not valid", "write a whole number and a unit, one of `s m h d w`, such as `30s` or `2d`";
    BAD_DATE = "HM-M016" Error "a partition key is not valid", "write the first partition as the grain spells it, such as `2026-08-01`";
    NO_DOMAIN = "HM-M017" Warning "a domain has no domain.yaml", "add domains/<domain>/domain.yaml with owners";
    NO_OWNER = "HM-M018" Warning "a product has no owner with a mail address", "add owners to domain.yaml or members to the product's team";
    BAD_ENVIRONMENT = "HM-M019" Error "an environment is not complete", "correct the environment in mesh.yaml";
    NO_PRODUCT_FILE = "HM-M020" Error "a folder holds pipelines or contracts but no product.odps.yaml", "add product.odps.yaml, or remove the files";
    UNUSED_FILE = "HM-M021" Warning "no port and no pipeline uses a file", "declare the port, use the file in a pipeline, or remove it";
    DUPLICATE_NAME = "HM-M022" Error "a name is used twice in one product", "rename one of the two";
    BAD_VALUE = "HM-M023" Error "a value could not be understood", "write it in the form that the message shows";
    NO_SOURCE = "HM-M024" Error "an external input does not say where its rows come from", "add customProperties `hydromesh.files` or `hydromesh.topic`";
    BAD_FEATURE = "HM-M025" Error "a feature is not valid", "write `agg: function(column)` with a function from the documentation and a list of windows";
    UNSUPPORTED = "HM-M026" Error "this is not supported yet", "leave it out, or use what the message names";
    UNKNOWN_POOL = "HM-M027" Error "a pipeline names a pool that no environment has", "add it to `limits: {pools: {NAME: STEPS}}` of an environment in mesh.yaml, or correct the name";
    BAD_SCHEDULE = "HM-M028" Error "a schedule has no meaning for its pipeline", "leave it out, give a cron, or add the promise that the message names";
    NOT_CUT = "HM-M032" Error "a pipeline picks partitions where there are none", "leave the port out of `inputs`, or cut both tables by `partition`";
    BAD_VALUES = "HM-M040" Error "an output cannot be cut by these values", "list each value once, as the column of the contract, a string or an integer, holds it";
    NOT_FOR_VALUES = "HM-M041" Error "a key is for outputs that are cut by a calendar", "leave it out: partitions that are values have no length and no order in time";
    BAD_KEYS = "HM-M042" Error "values cannot be looked for there", "name a string or integer column of a table or of files that the product reads, of the type that the output's column has: `values: {from: INPUT.COLUMN}`";
    NO_TRAINER_FILE = "HM-M043" Error "a trainer's program is not among the files that it is shown", "commit the program to the product's folder, or correct its path";
    TRAINER_NOWHERE = "HM-M044" Warning "a trainer is a command that may run nowhere", "let an environment name the domain in `allow_commands`, or write `train: {builtin: logistic_regression}`";
    NETWORK_NOWHERE = "HM-M045" Warning "a trainer asks for the network, which no environment grants", "let an environment that allows its commands name the domain in `allow_network`, or leave `network` out";
    BAD_WINDOW = "HM-M033" Error "a window over an input cannot be meant", "write `from` and `to` in the units that the message names, so that partitions of the input lie between them";

    ODCS_VERSION = "HM-C001" Error "the standard's version is not supported", "use apiVersion v3.2.0 (v3.0 and v3.1 are read too; product files: v1.1.0)";
    SCHEMA_COUNT = "HM-C002" Error "a port's contract must hold exactly one schema object", "split the contract: one file, one port, one object";
    OPAQUE_TYPE = "HM-C003" Warning "a column's type is carried as text", "flatten the column into scalar columns when queries must see inside";
    BAD_QUALITY = "HM-C004" Error "a quality rule is not valid", "give the rule one metric (or a query) and exactly one operator such as `mustBe`";
    CUSTOM_QUALITY = "HM-C005" Warning "a quality rule is not evaluated", "write the rule as a library metric or as `type: sql`";
    BAD_SLA = "HM-C006" Warning "a service level could not be understood and is not evaluated", "give `value` a number and `unit` a time unit, such as `value: 4`, `unit: h`";
    UNKNOWN_CLASSIFICATION = "HM-C007" Warning "a classification word is not known", "use public, internal, confidential, restricted, sensitive or pii; until then the column counts as confidential";
    DUPLICATE_COLUMN = "HM-C008" Error "a column is given twice", "keep one of the two";
    CONTRACT_ID = "HM-C009" Error "a contract's id is not the address of its port", "leave the id out, or write `domain/product.port`";
    VERSION_DIFFERS = "HM-C010" Warning "a port and its contract state different versions", "state the version once, in the contract";
    BAD_TYPE_OPTIONS = "HM-C011" Error "a column's type lacks what it needs", "complete the type as the message says";
    BAD_ENUM = "HM-C012" Error "a column's list of values is not valid", "give each value once, with at least one value";
    BAD_SERVER = "HM-C013" Error "a server entry is not valid", "complete the server as the standard asks for its type";
    BAD_RELATIONSHIP = "HM-C014" Error "a relationship is not valid", "a relationship of a column has `to`; one of an object has `from` and `to`";
    OLD_SPELLING = "HM-C015" Note "an older spelling of the standard is used", "write the newer key that the message names";
    NO_PROGRAM = "HM-C016" Error "a rule's program is not in the product's folder", "commit the program, or correct its path, which is relative to the product's folder";
    COMMAND_NOWHERE = "HM-C017" Warning "a rule is a command that may run nowhere", "let an environment name the domain in `allow_commands`, or write the rule as `type: sql`";

    SQL_SYNTAX = "HM-S001" Error "the SQL cannot be parsed", "correct the SQL at this place";
    SQL_SECOND_STATEMENT = "HM-S002" Error "the SQL holds a second statement", "keep one SELECT; a second step belongs in a pipeline of its own";
    SQL_NOT_A_QUERY = "HM-S003" Error "the SQL is not a query", "write one SELECT or WITH; Hydromesh itself writes the result to the port";
    SQL_COPY = "HM-S004" Error "COPY is refused", "read data through an input port; COPY would bypass policy, lineage and quality rules";
    SQL_UNKNOWN_TABLE = "HM-S005" Error "the SQL reads a table that is not an input port", "declare the input port in product.odps.yaml, or correct the name";
    SQL_TABLE_FUNCTION = "HM-S006" Error "the SQL calls a table function", "read data through an input port";
    SQL_FILE_PATH = "HM-S007" Error "the SQL reads a file by its path", "declare an external input port with `hydromesh.files`";
    SQL_INTO = "HM-S008" Error "the query writes or locks", "remove INTO and FOR UPDATE; Hydromesh itself writes the result to the port";
    SQL_EMPTY = "HM-S009" Error "the SQL file is empty", "write one SELECT";
    SQL_UNSUPPORTED = "HM-S010" Error "the SQL uses a construct outside the portable subset", "rewrite it in standard SQL";
    SQL_MISSING_COLUMN = "HM-S011" Error "the SQL reads a column that does not exist", "use a column of the input's contract";
    SQL_PLAN = "HM-S012" Error "the SQL cannot be planned", "correct the SQL as the message says";
    SQL_VOLATILE = "HM-S013" Error "a partitioned query is not repeatable", "remove the function; a partition computed again must yield the same rows";
    EXTRA_COLUMN = "HM-S014" Error "the query yields a column that the contract does not have", "add the column to the contract, or remove it from the query";
    ABSENT_COLUMN = "HM-S015" Error "the query does not yield a column of the contract", "add the column to the query, or remove it from the contract";
    TYPE_MISMATCH = "HM-S016" Error "the query yields another type than the contract promises", "cast the column, or correct the contract";
    MAYBE_NULL = "HM-S017" Note "a required column may be null", "use COALESCE or filter nulls; otherwise the audit before publishing decides";

    SYMLINK = "HM-R001" Error "the repository holds a symbolic link", "replace the link by the file itself";
    SUBMODULE = "HM-R002" Error "the repository holds a submodule", "copy the files in, or read the other repository's ports";
    UNREADABLE = "HM-R003" Error "a file could not be read", "check that the file is in the commit";
    SIGNATURE = "HM-R004" Error "a change is not signed by somebody who may", "let somebody who may sign a commit with the line `Vouches-for: COMMIT`, or take the change back";
    HISTORY = "HM-R005" Error "a branch cannot be judged from where it was accepted", "bring the branch forward from the accepted commit, without a forced push";
    SIGNERS = "HM-R006" Error "the signers cannot be used", "correct the folder of --signers as the message says";
    POLICY_SYNTAX = "HM-P001" Error "a policy cannot be parsed", "correct the Rego at this place; until then the gate denies";
    POLICY_RUNTIME = "HM-P002" Error "a policy failed while it was evaluated", "correct the rule; until then the gate denies";
    POLICY_UNANSWERED = "HM-P003" Error "the policies gave no answer", "rewrite the rule that is named so that what it builds is bounded by its input; until then the gate denies";
    WAIVER = "HM-P004" Error "a waiver cannot be used", "correct it as the message says; until then it waives nothing";
    WAIVER_ENDED = "HM-P005" Warning "a waiver has ended", "remove it, or let its approver set a later `expires` if the rule may still be broken";
    BAD_ROW = "HM-D001" Warning "a row of a file could not be read and is quarantined", "correct the row at its source; the other rows go on";
    BAD_MESSAGE = "HM-D002" Warning "a message could not be read and is in the dead-letter table", "correct the producer; the other messages go on";

    QUERY_FAILED = "HM-X001" Error "a query failed while it ran", "correct the query or the value that the message names; the next commit or new input starts it again";
    QUERY_MEMORY = "HM-X002" Error "a query needs more memory than queries may hold together", "compute less at once: a smaller `backfill.chunk`, an earlier filter, a narrower join";
    FILE_IO = "HM-X003" Error "a step could not read or write a file", "look at the disk, the permissions and the free space of the state folder; the step is tried again by itself";
    STEP_BUG = "HM-X004" Error "a bug of Hydromesh", "report it with the message and the log lines around it";
    INPUT_ABSENT = "HM-X005" Error "an input is not there yet", "deploy or mend the upstream product; the step starts again by itself";
    NO_INPUT_FILES = "HM-X006" Error "no file matches an input's pattern", "add the files, or correct `hydromesh.files`";
    CANCELLED = "HM-X007" Note "a step was stopped", "nothing; what is still due starts again by itself";
    BAD_CUT = "HM-X008" Error "the output cannot be cut into partitions", "cut by a date column every day, or by a string column that holds the partition's key";
    WORKER_LOST = "HM-X009" Error "the process that performed a step is gone, or does not understand it", "start it again with the same version as the controller; the step is tried again by itself";
    CANCELLED_BY_HAND = "HM-X010" Note "somebody cancelled a step", "`hydromesh retry PRODUCT` when it may run again";
    TIMED_OUT = "HM-X011" Error "a step took longer than its `timeout`", "raise `timeout`, or compute less at once with a smaller `backfill.chunk`; the step is tried again by itself";
    DISK = "HM-X012" Error "a disk is full or read-only", "make room, or make it writable again; whatever waits for it goes on by itself";
    LEDGER_DAMAGED = "HM-X013" Error "a file of the ledger is damaged", "keep a copy, take the state folder's files away, and start again: the ledger comes back from the lake";
    TOO_MANY_KEYS = "HM-X014" Error "a column has more values than an output can be cut by", "cut by a column of fewer values, or keep the others out of the input; the values that are known go on";
    COMMAND_UNREADY = "HM-X015" Error "a command could not be run", "make room for its folder, or give the product fewer files; the step is tried again by itself";
    EMBED_COLUMNS = "HM-X020" Error "a port's columns do not fit an embedding", "give the contract the columns that the message names, with the dimensions of the model";
    EMBED_MODEL = "HM-X021" Error "an embedding model failed", "correct `model` in pipeline.yaml; trouble of a remote model is tried again by itself";
    RESTORING = "HM-X060" Error "a restore into this state folder has not ended", "wait for it, or remove what is in the folder and restore once more";
    BACKUP_NOT_WHOLE = "HM-X061" Error "files of a backup are gone or cut", "restore an older backup; of this one the ledger and what is whole can be put in place by hand";

    LAKE_IO = "HM-L001" Error "a table could not be read or written", "look at the lake's disk; the step is tried again by itself";
    FENCED = "HM-L002" Error "a newer controller has written to this table", "keep one controller per state folder; stop the older one";
    CHAIN_BROKEN = "HM-L003" Error "a stream's record in its table is not the one that the step continues", "let it start again; it reads the table's own record";
    TABLE_REFUSED = "HM-L004" Error "rows or columns do not fit the table", "correct the query or the contract as the message says";
    TABLE_DAMAGED = "HM-L005" Error "the log of a table is damaged", "a table that can be computed again is; else move its folder away, or put it back from a backup";
    UNPINNED = "HM-L006" Error "a version that a preview reads from its parent is gone", "begin the preview again with `hydromesh apply --env preview/NAME --refresh`";

    AUDIT_FAILED = "HM-Q001" Error "a quality rule failed, so nothing was published", "mend the data or the rule; the last good partition stays visible";

    STREAM_SOURCE = "HM-F001" Error "a topic cannot be followed", "see what the message says of the topic; an unreachable broker is tried again by itself";
    STREAM_QUERY = "HM-F002" Error "the query of a stream looks beyond one row", "write expressions and a WHERE over the source; aggregate in a feature or batch pipeline";
    STREAM_RECORD = "HM-F003" Error "a stream's record of progress cannot be continued", "do not edit the table by hand; a newer version's record needs that version";

    FEW_LABELS = "HM-T001" Error "there are too few labels to train on", "add labels, or wait for more";
    ONE_CLASS = "HM-T002" Error "all labels are the same", "let the spine yield labels of both classes";
    NO_FEATURE = "HM-T003" Error "no feature can be used", "name a feature port with numbers in `training_set.features`";
    BAD_SPINE = "HM-T004" Error "the spine's columns are not those of a spine", "select the entity, the times of `as_of` and one label column of type boolean or integer";
    BAD_LABEL = "HM-T005" Error "a label is neither 0 nor 1", "yield 0 and 1, or false and true";
    FIT_FAILED = "HM-T006" Error "the model could not be fitted", "look for features with extreme values";
    MODEL_FILE = "HM-T007" Error "a model's file cannot be read or written", "look at the lake's disk; the step is tried again by itself";
    FEATURE_VALUES = "HM-T008" Error "features cannot be computed or compared", "correct the feature port that the message names";
    NO_TRAINER = "HM-T010" Error "there is no such trainer", "write `train: {builtin: logistic_regression}`, or `command` with a program of your own";
    NO_METRIC = "HM-T011" Error "models cannot be compared by this metric", "write `gate: {metric: auc, non_inferiority: 0.01}`";
    MODEL_COLUMNS = "HM-T012" Error "the contract of a model port does not fit the table of models", "give the contract columns out of those that the message lists";
    TRAINER_DENIED = "HM-T013" Error "a trainer may not run in this environment", "let the environment name the domain in `allow_commands` (and in `allow_network`, if it asks for the network)";
    TRAINER_FAILED = "HM-T014" Error "a trainer's program failed", "read what it complained of, in the file that the message names";
    BAD_MODEL = "HM-T015" Error "a trainer left no model that can be kept", "leave at least one plain file below HYDROMESH_MODEL, and nothing but plain files and folders";
    BAD_SCORES = "HM-T016" Error "a trainer's scores are not one probability for each row", "write one number from 0 to 1 a line to HYDROMESH_SCORES, in the order of the rows";

    HTTP_PATH = "HM-H001" Error "nothing is served at this path", "the answer lists what there is";
    HTTP_PRODUCT = "HM-H002" Error "no such product is deployed", "`GET /v1/status` lists the deployed products";
    HTTP_ENTITY = "HM-H003" Error "the entity is missing or not usable", "give the entity as the product's key: `?customer_id=C-1001`";
    HTTP_REQUEST = "HM-H004" Error "the request is not valid", "correct what the message names";
    HTTP_ACCESS = "HM-H005" Error "the port does not offer this access", "declare it under `hydromesh.access` in product.odps.yaml";
    HTTP_FEATURE = "HM-H006" Error "no such feature is served", "use one of the columns that the help lists";
    HTTP_TOKEN = "HM-H007" Error "the token is missing or wrong", "send `Authorization: Bearer TOKEN` with the controller's token";
    HTTP_SIZE = "HM-H008" Error "the body is too large", "ask for fewer entities at once; a push whose webhook is larger is found by the poll";
    HTTP_SLOW = "HM-H009" Error "the answer took too long", "ask again; if it stays slow, look at /metrics";
    HTTP_NOT_READY = "HM-H010" Error "nothing is known yet", "ask again in a few seconds";
    HTTP_FAILED = "HM-H011" Error "the answer could not be made", "the controller's log says why";
    HTTP_METHOD = "HM-H012" Error "this method is not answered here", "look-ups and search are GET (several entities: POST), commands and webhooks are POST";
    HTTP_JOIN = "HM-H013" Error "two products cannot be mixed in one look-up", "mix ports that are looked up by the same key";
    HTTP_REFUSED = "HM-H014" Error "the controller refused the command", "read the message: it says what stands in the way";
    HTTP_BUSY = "HM-H015" Error "the controller cannot take the command now", "send it again with the same key: it counts once";
    HTTP_HOST = "HM-H016" Error "the request names another host", "open it as 127.0.0.1 or localhost";
    HTTP_NO_WEBHOOKS = "HM-H017" Error "webhooks are not set up", "start the controller with --webhook-secret-file, and give the forge the same secret";
    HTTP_SIGNATURE = "HM-H018" Error "the webhook's signature is missing or wrong", "give the forge the secret of --webhook-secret-file";
    HTTP_WEBHOOK_TYPE = "HM-H019" Error "a webhook of this type is not taken", "choose `application/json` in the webhook's settings";
}

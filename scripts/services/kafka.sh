#!/usr/bin/env bash
# Starts, stops or shows a real Apache Kafka (KRaft, one broker, loopback only) for the tests of streams.
#
#   scripts/services/kafka.sh start|stop|status
#
# Needs Java 17 and Maven: the broker comes from Maven Central as ordinary artefacts, there is no installation.
# Everything lies in one folder and can be removed at any time; data does not survive `start` after a `stop`.
#
#   HYDROMESH_KAFKA_PORT   port of the broker (default 19092; the controller takes the next one)
#   XDG_CACHE_HOME         where the folder is (default ~/.cache)
set -euo pipefail

readonly version=4.1.0
readonly log4j_version=2.24.3
readonly port="${HYDROMESH_KAFKA_PORT:-19092}"
readonly controller_port=$((port + 1))
readonly address="127.0.0.1:${port}"
readonly home="${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh/services/kafka"
readonly jars="${home}/jars-${version}"
readonly run="${home}/run-${port}"
readonly log="${run}/broker.log"
readonly pid_file="${run}/broker.pid"
readonly wait_seconds=60

say() { printf 'kafka: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

need() {
    command -v java >/dev/null || fail "java is missing; on Debian: apt-get install openjdk-17-jre-headless"
    command -v mvn >/dev/null || [ -e "${jars}/.complete" ] || fail "mvn is missing; on Debian: apt-get install maven"
}

# The process is ours only if it still runs the broker from our folder: process ids are reused.
running_pid() {
    local pid
    [ -s "${pid_file}" ] || return 1
    pid=$(cat "${pid_file}")
    [ -r "/proc/${pid}/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/${pid}/cmdline" | grep -qF "${run}/server.properties" || return 1
    printf '%s\n' "${pid}"
}

fetch_jars() {
    [ -e "${jars}/.complete" ] && return
    say "fetching Apache Kafka ${version} from Maven Central (about 100 MB, once)"
    mkdir -p "${jars}" "${home}/pom"
    cat >"${home}/pom/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hydromesh.services</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>${version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>${log4j_version}</version>
    </dependency>
  </dependencies>
</project>
POM
    mvn --batch-mode --quiet --file "${home}/pom/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="${jars}" >&2
    touch "${jars}/.complete"
}

write_config() {
    rm -rf "${run}"
    mkdir -p "${run}/data"
    cat >"${run}/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://${address},CONTROLLER://127.0.0.1:${controller_port}
advertised.listeners=PLAINTEXT://${address}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=${run}/data
num.partitions=1
# Tests write events of fixed dates; retention would remove them as old while they are read.
log.retention.ms=-1
auto.create.topics.enable=false
delete.topic.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
}

# Kafka 4 logs through log4j2; without a configuration of its own it would print errors only.
write_log_config() {
    cat >"${run}/log4j2.properties" <<'LOG'
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
logger.lifecycle.name=org.apache.kafka.server.BrokerLifecycleManager
logger.lifecycle.level=INFO
LOG
}

readonly java_options=(
    -Xms128m -Xmx512m -XX:+UseSerialGC "-Dlog4j2.configurationFile=${run}/log4j2.properties" -cp "${jars}/*"
)

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/${port}") 2>/dev/null; }

# A listening port is not a broker: ask for the API versions as a client would.
ready() {
    port_open && java "${java_options[@]}" org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "${address}" \
        >/dev/null 2>&1
}

start() {
    need
    if running_pid >/dev/null; then
        say "is running already"
        printf '%s\n' "${address}"
        return
    fi
    port_open && fail "port ${port} is taken by another program; choose one with HYDROMESH_KAFKA_PORT"
    fetch_jars
    write_config
    write_log_config
    local cluster
    cluster=$(java "${java_options[@]}" kafka.tools.StorageTool random-uuid 2>>"${log}")
    java "${java_options[@]}" kafka.tools.StorageTool format --cluster-id "${cluster}" --config "${run}/server.properties" \
        >>"${log}" 2>&1 || fail "formatting the storage failed; see ${log}"
    java "${java_options[@]}" kafka.Kafka "${run}/server.properties" >>"${log}" 2>&1 </dev/null &
    printf '%s\n' "$!" >"${pid_file}"
    disown
    local waited=0
    until ready; do
        running_pid >/dev/null || { tail -n 20 "${log}" >&2; fail "the broker ended; its log is ${log}"; }
        [ "${waited}" -lt "${wait_seconds}" ] || fail "the broker was not ready within ${wait_seconds} s; see ${log}"
        sleep 1
        waited=$((waited + 1))
    done
    say "Apache Kafka ${version} is ready; for the tests: HYDROMESH_TEST_KAFKA=${address}"
    printf '%s\n' "${address}"
}

stop() {
    local pid waited=0
    if ! pid=$(running_pid); then
        say "is not running"
        rm -f "${pid_file}"
        return
    fi
    kill "${pid}"
    while kill -0 "${pid}" 2>/dev/null; do
        if [ "${waited}" -ge 20 ]; then
            say "did not stop within 20 s and is killed"
            kill -9 "${pid}" 2>/dev/null || true
            break
        fi
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "${pid_file}"
    say "stopped"
}

status() {
    local pid
    if pid=$(running_pid) && ready; then
        say "running with process id ${pid}"
        printf '%s\n' "${address}"
    elif [ -n "${pid:-}" ]; then
        say "running with process id ${pid} but not answering at ${address}"
        return 1
    else
        say "not running"
        return 3
    fi
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *)
        printf 'usage: %s start|stop|status\n' "$0" >&2
        exit 2
        ;;
esac

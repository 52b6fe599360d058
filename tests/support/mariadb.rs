//! A private MariaDB server: made and started by the process that uses it, gone when it is.
//!
//! Included by path where it is needed. Uses the system's `mariadbd`.

#[path = "server.rs"]
mod server;

use server::Server;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

/// A running server, which asks nobody for a password.
pub(crate) struct MariaDb {
    server: Server,
    databases: AtomicUsize,
}

/// Starts the server, says "ready", and waits for the end of its standard input.
///
/// Without grant tables an empty data directory will do: nothing needs to be installed into it.
const SHELL: &str = r#"
bin=$1 dir=$2 options=$3
trap '' INT TERM HUP
mkdir -p "$dir/data/mysql"
# Not holding the pipe whose end this waits for.
(trap - INT TERM HUP; exec "$bin" --no-defaults --datadir="$dir/data" --socket="$dir/socket" \
    --pid-file="$dir/pid" --skip-networking --skip-grant-tables $options) \
    </dev/null >"$dir/log" 2>&1 &
server=$!
tries=0
until [ -S "$dir/socket" ] && grep -q "ready for connections" "$dir/log"; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $server 2>/dev/null; then
        kill -9 $server 2>/dev/null
        tail -n 20 "$dir/log"
        rm -rf "$dir"
        exit 1
    fi
    sleep 0.1
done
echo ready
cat >/dev/null
kill -9 $server
wait $server 2>/dev/null
rm -rf "$dir"
"#;

const OPTIONS: &str = "--innodb-buffer-pool-size=16M --innodb-log-file-size=8M \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-use-native-aio=0 \
    --max-connections=200 --character-set-server=utf8mb4";

impl MariaDb {
    /// `Err` says why there is none: MariaDB is not installed, or did not start.
    pub(crate) fn start() -> Result<Self, String> {
        let accounts = ["mysql", "nobody"];
        let server = Server::start("my", &accounts, SHELL, &binary()?, |_| OPTIONS.to_owned())?;
        Ok(Self { server, databases: AtomicUsize::new(0) })
    }

    /// The process's one server, for tests. `None`, after a note that no test harness captures,
    /// where MariaDB is not installed; unless `FIBERBACK_REQUIRE_MARIADB` is set.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<MariaDb>> = OnceLock::new();
        SHARED
            .get_or_init(|| match Self::start() {
                Ok(server) => Some(server),
                Err(reason) if env::var_os("FIBERBACK_REQUIRE_MARIADB").is_some() => {
                    panic!("FIBERBACK_REQUIRE_MARIADB is set, but: {reason}")
                }
                Err(reason) => {
                    let _ = writeln!(
                        std::io::stderr(),
                        "\nNOT RUN: the tests that need MariaDB: {reason}\n\
                         NOT RUN: `.ci/mariadb` installs it (apt-get install mariadb-server-core)\n"
                    );
                    None
                }
            })
            .as_ref()
    }

    /// What to connect to for this database; an empty name for none.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.server.directory().join("socket");
        format!("mysql://root@localhost/{database}?socket={}", socket.display())
    }

    /// A name for a database that does not exist yet.
    pub(crate) fn new_name(&self) -> String {
        format!("scratch_{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where `mariadbd` is. (MySQL's own server does not start in an empty directory.)
fn binary() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(places)
        .map(|place| place.join("mariadbd"))
        .find(|program| fs::metadata(program).is_ok_and(|found| found.is_file()))
        .ok_or_else(|| "no MariaDB is installed: no mariadbd in PATH or /usr/sbin".to_owned())
}

package online

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// TestAnswersSayWhatToDo has Redis refuse in every way that an operator can mend: the message that a role starts, or goes on, with says what was done,
// where, what Redis said and what to do next.
func TestAnswersSayWhatToDo(t *testing.T) {
	for said, c := range map[string]struct {
		hint  string
		start failure.Kind
	}{
		"READONLY You can't write against a read only replica.":                                         {"--redis-master", failure.Unavailable},
		"NOPERM this user has no permissions to run the 'ping' command":                                 {"docs/redis.md", failure.BadProject},
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist":       {"disk", failure.Unavailable},
		"LOADING Redis is loading the dataset in memory":                                                {"wait until", failure.Unavailable},
		"CLUSTERDOWN The cluster is down":                                                               {"CLUSTER NODES", failure.Unavailable},
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.":              {"primary's address", failure.Unavailable},
		"OOM command not allowed when used memory > 'maxmemory'.":                                       {"maxmemory: give it more", failure.Unavailable},
		"ERR Error running script (call to f_1): @user_script:9: -READONLY You can't write":             {"--redis-master", failure.Unavailable},
		"ERR ACL failure in script: The user executing the script can't run this command or subcommand": {"docs/redis.md", failure.Unavailable},
	} {
		m := miniredis.RunT(t)
		client := redis.NewClient(&redis.Options{Addr: m.Addr(), MaxRetries: -1})
		m.SetError(said)
		_, err := NewWriter(client, "p", "g", "v").Write(t.Context(), 0, Batch{})
		check := func(doing string, err error, kind failure.Kind) {
			if err == nil || failure.Of(err) != kind || !strings.Contains(err.Error(), said) || !strings.Contains(err.Error(), c.hint) || !strings.Contains(err.Error(), "redis") {
				t.Errorf("%s: %v (%v), want %q", doing, err, failure.Of(err), c.hint)
			}
		}
		check("writing", err, failure.Unavailable)
		_, err = Open(t.Context(), Config{Addrs: []string{m.Addr()}})
		check("starting", err, c.start)
		_ = client.Close()
	}
}

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/features/online"
)

// TestRedisACL holds docs/redis.md to what Redis says: a user with the rights named there may run every command of our scripts. One who may not ask for
// the time, which no category but @fast has, is told when the role starts, not at the first lease.
func TestRedisACL(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_REDIS") == "" {
		t.Skip("needs redis-server: the embedded Redis has no ACL")
	}
	s := startRedis(t)
	page, err := os.ReadFile("../docs/redis.md")
	must(t, err)
	told := regexp.MustCompile("An ACL user needs `([^`]+)`").FindSubmatch(page)
	if told == nil {
		t.Fatal("docs/redis.md does not say what an ACL user needs")
	}
	rights := strings.Fields(string(told[1]))
	user := func(name string, rights []string) online.Config {
		args := []any{"ACL", "SETUSER", name, "on", ">secret"}
		for _, r := range rights {
			args = append(args, r)
		}
		s.do(args...)
		return online.Config{Addrs: []string{s.addr()}, Username: name, Password: "secret"}
	}

	client, err := online.Open(t.Context(), user("as_told", rights))
	must(t, err)
	must(t, client.Close())
	files, err := filepath.Glob("../features/online/*.go")
	must(t, err)
	commands := map[string]bool{}
	for _, f := range files {
		source, err := os.ReadFile(f)
		must(t, err)
		for _, m := range regexp.MustCompile(`redis\.call\('(\w+)'`).FindAllSubmatch(source, -1) {
			commands[string(m[1])] = true
		}
	}
	if len(commands) < 10 {
		t.Fatalf("only %v are found in the scripts", commands)
	}
	for name := range commands {
		infos, err := s.client.Command(context.Background()).Result()
		must(t, err)
		info := infos[strings.ToLower(name)]
		if !slices.Contains(rights, "+"+strings.ToLower(name)) && !slices.ContainsFunc(info.ACLFlags, func(category string) bool { return slices.Contains(rights, "+"+category) }) {
			t.Errorf("a script calls %s (%v), which docs/redis.md does not allow", name, info.ACLFlags)
		}
	}

	without := slices.DeleteFunc(slices.Clone(rights), func(r string) bool { return r == "+time" })
	if client, err = online.Open(t.Context(), user("without_time", without)); err == nil || !strings.Contains(err.Error(), "+time") {
		t.Errorf("a user who may not ask for the time is told: %v", err)
	}
	if err == nil {
		must(t, client.Close())
	}
}

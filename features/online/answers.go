package online

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

const moreRights = "the ACL user needs more rights: docs/redis.md has all that it needs"

// hints says what to do next about what Redis answers, by the word that its error begins with.
var hints = []struct{ word, hint string }{
	{"READONLY", "this Redis is a replica: give the primary's address with --redis, or the Sentinels' with --redis-master"},
	{"NOPERM", moreRights},
	{"MISCONF", "Redis cannot save to its disk and takes no writes: make room there, or look at its log"},
	{"LOADING", "Redis is still reading its data: wait until it has, and try again"},
	{"CLUSTERDOWN", "part of the cluster has no primary: CLUSTER INFO and CLUSTER NODES say which"},
	{"MASTERDOWN", "this Redis is a replica that has lost its primary: give the primary's address with --redis"},
	{"OOM", "Redis has reached maxmemory: give it more, or shorten ttl and windows of the groups"},
}

// hintOf is what to do next about an answer of Redis, or empty where there is nothing to say.
func hintOf(err error) string {
	for _, h := range hints {
		if redis.HasErrorPrefix(err, h.word) || strings.Contains(err.Error(), "-"+h.word+" ") { // the second out of a script, before Redis 7
			return h.hint
		}
	}
	if notAllowed(err) {
		return moreRights
	}
	return ""
}

// notAllowed reports whether a script was refused a command by its user's ACL.
func notAllowed(err error) bool { return strings.Contains(err.Error(), "can't run this command") }

// answering turns an error of the Redis client into ours: it did not answer, or refused, or there was not enough time.
func answering(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return failure.Wrap(failure.Deadline, "redis", doing, err)
	}
	e := failure.Wrap(failure.Unavailable, "redis", doing, err)
	e.Hint = hintOf(err)
	return e
}

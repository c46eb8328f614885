package serving

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// HeaderTimeout is the request header with the milliseconds that the client has; the model's declared timeout caps it.
const HeaderTimeout = "Millrace-Timeout-Ms"

// MaxHeaderTimeout is the most that it may say.
const MaxHeaderTimeout = 24 * time.Hour

// statusClientGone is what a request is counted under whose client hung up before it was answered (nginx's 499). Nobody sees it.
const statusClientGone = 499

// maxScoreReserve is the most that is kept back from reading features to score and to write the answer.
const maxScoreReserve = 5 * time.Millisecond

// timeout is what the client gives, at most what is declared.
func timeout(r *http.Request, declared time.Duration) (time.Duration, *problem) {
	sent := r.Header.Values(HeaderTimeout)
	if len(sent) == 0 {
		return declared, nil
	}
	ms, err := strconv.ParseInt(sent[0], 10, 64)
	if err != nil || len(sent) > 1 || ms <= 0 || ms > MaxHeaderTimeout.Milliseconds() {
		return 0, badRequest(codeType, HeaderTimeout, "is not a number of milliseconds above 0, at most a day's")
	}
	if ms >= declared.Milliseconds() {
		return declared, nil
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// deadlineOf is the context of a request that has so long. It ends when the client hangs up, too.
func deadlineOf(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, &failure.Error{Kind: failure.Deadline, What: "the " + d.String() + " that the request had are over"})
}

// fetchUntil is the time until which features may be read: declared from now on, where that is not 0, and in any case a tenth of what is
// left, at most maxScoreReserve, before the deadline. What the body took to come is gone already.
func fetchUntil(deadline, now time.Time, declared time.Duration) time.Time {
	until := deadline.Add(-min(deadline.Sub(now)/10, maxScoreReserve))
	if byDeclared := now.Add(declared); declared > 0 && byDeclared.Before(until) {
		return byDeclared
	}
	return until
}

// gone reports whether the client has hung up: what is done from here on is for nobody.
func gone(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

func clientGone() *problem {
	return &problem{Status: statusClientGone, Code: codeClientGone, Detail: "the client hung up before it was answered"}
}

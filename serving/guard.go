package serving

import (
	"fmt"
	"math"
	"sync"

	"github.com/millrace/millrace/features/profile"
)

// guard judges a challenger while it answers, in one process, by two tests. Each has a probability of at most guardFalseAlarms of ever
// withdrawing a challenger that is as it should be, however long it runs and however often it is looked at; with several replicas, each has
// that of its own.
//
// Failures: a row of the challenger's that it could not answer and the champion could, or that ran into the deadline while it was scored.
// What neither can answer (Redis is away) is not counted. That their share is at most guardFailures is tested by a mixture of likelihood
// ratios against greater shares, which is a supermartingale while the share is at most that: it ever passes 1/alpha with a probability of at
// most alpha (Ville 1939; Robbins 1970; Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences").
//
// Scores: their distribution against that of the held-out rows that the challenger was judged on in training, by the population stability
// index and its calibrated threshold (package profile), after guardFirst answers and each time that they have doubled. The k-th look
// has alpha/2^k of the probability. Which entities are in the share, and what has changed in the world since the training, moves the
// champion's scores of the same rows too: a challenger is withdrawn only when its distribution has left its baseline and the champion's has
// not left its own.
type guard struct {
	mu       sync.Mutex
	rows     int64 // that were the challenger's, and somebody could answer
	failures int64
	odds     [len(guardShares)]float64 // logarithms of the likelihood ratios

	baseline, control *profile.Baseline // of the challenger and the champion; nil without one
	live, beside      *profile.Window
	answers, next     int64
	alpha             float64 // of the next look
}

const (
	guardFalseAlarms = 0.001
	guardFailures    = 0.01 // share of failures that is borne
	guardLeast       = 20   // rows before a challenger is withdrawn for failures
	guardFirst       = 500  // answers at the first look at scores
	guardPSI         = 0.1  // a distance that does not count, however significant: conventionally a small shift
)

// guardShares are the shares of failures that are weighed against guardFailures.
var guardShares = [...]float64{0.02, 0.05, 0.2, 0.5}

func newGuard(challenger, champion *profile.Baseline) *guard {
	g := &guard{baseline: challenger, control: champion, next: guardFirst, alpha: guardFalseAlarms / 2}
	g.restart()
	return g
}

func (g *guard) restart() {
	g.live, g.beside = nil, nil
	if g.baseline != nil && g.baseline.Score != nil {
		g.live = g.baseline.NewWindow()
	}
	if g.control != nil && g.control.Score != nil {
		g.beside = g.control.NewWindow()
	}
}

// failed notes a row that the challenger failed on. It gives why the challenger is to be withdrawn, or nothing.
func (g *guard) failed(reason string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rows++
	g.failures++
	for i, p := range guardShares {
		g.odds[i] += math.Log(p / guardFailures)
	}
	if g.rows < guardLeast || g.evidence() < 1/guardFalseAlarms {
		return ""
	}
	return fmt.Sprintf("it failed on %d of %d rows, where at most a share of %g is borne; the last: %s", g.failures, g.rows, guardFailures, reason)
}

// evidence is the mixture of the likelihood ratios.
func (g *guard) evidence() float64 {
	sum := 0.0
	for _, o := range g.odds {
		sum += math.Exp(min(o, 700)) // beyond which it is infinite
	}
	return sum / float64(len(g.odds))
}

// answered notes a score of the challenger, and the champion's of the same row where that was asked. It gives why the challenger is to be
// withdrawn, or nothing.
func (g *guard) answered(score, champion float64, asked bool) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rows++
	for i, p := range guardShares {
		g.odds[i] += math.Log((1 - p) / (1 - guardFailures))
	}
	if g.live == nil {
		return ""
	}
	g.answers++
	g.live.AddScore(score)
	if g.beside != nil && asked {
		g.beside.AddScore(champion)
	}
	if g.answers < g.next {
		return ""
	}
	reason := g.look()
	g.next, g.alpha = 2*g.next, g.alpha/2
	return reason
}

func (g *guard) look() string {
	s := g.sensitivity(g.baseline)
	_, own := g.baseline.Compare(g.live, s)
	if own == nil || !own.Sufficient || own.PSI <= own.PSIThreshold {
		return ""
	}
	if g.beside != nil {
		if _, other := g.control.Compare(g.beside, g.sensitivity(g.control)); other != nil && other.Sufficient && other.PSI > other.PSIThreshold {
			return ""
		}
	}
	return fmt.Sprintf("the distribution of its scores has left its baseline: PSI %.3g over %d answers, above %.3g; the champion's on the same rows has not", own.PSI, own.Values, own.PSIThreshold)
}

// sensitivity gives the whole probability of a look to the scores: Compare divides it among all columns.
func (g *guard) sensitivity(b *profile.Baseline) profile.Sensitivity {
	return profile.Sensitivity{FalseAlarms: min(g.alpha*float64(len(b.Columns)+1), 0.5), Floor: guardPSI, MinValues: guardFirst}
}

// numbers is what a guard has counted, for the event that tells of its verdict.
func (g *guard) numbers() map[string]float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return map[string]float64{"rows": float64(g.rows), "failures": float64(g.failures)}
}

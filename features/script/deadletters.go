package script

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// deadLetters compares how many dead letters of each class there are so far.
func (r *runner) deadLetters(ctx context.Context, number int, rest string) (rewritten string, err error) {
	want := map[string]int{}
	for _, word := range strings.Fields(rest) {
		class, count, _ := strings.Cut(word, "=")
		n, err := strconv.Atoi(count)
		if err != nil || n <= 0 || want[class] > 0 {
			return "", failure.New(failure.BadProject, "", "%q is not <class>=<count>: dead-letters names the classes that there are, such as late=2, each once", word)
		}
		want[class] = n
	}
	letters, err := r.target.DeadLetters(ctx)
	if err != nil {
		return "", fmt.Errorf("reading dead letters: %w", err)
	}
	r.expectations++
	r.told = len(r.records)
	got := map[string]int{}
	for _, l := range letters {
		got[l.Class]++
	}
	if formatCounts(got) == formatCounts(want) {
		return "", nil
	}
	if r.update {
		return strings.TrimSpace("dead-letters " + formatCounts(got)), nil
	}
	r.fail(number, fmt.Errorf("dead letters: got %s, want %s", orNone(formatCounts(got)), orNone(formatCounts(want))))
	return "", nil
}

// untold fails for every record that became a dead letter without a later line that tells of it.
func (r *runner) untold(ctx context.Context) {
	if r.told == len(r.records) {
		return
	}
	letters, err := r.target.DeadLetters(ctx)
	if err != nil {
		r.fail(r.records[len(r.records)-1], fmt.Errorf("reading dead letters: %w", err))
	}
	for _, l := range letters {
		if l.Record >= r.told {
			r.fail(r.records[l.Record], failure.New(failure.BadRecord, "", "the record is a dead letter (%s): %s", l.Class, l.Reason).
				WithHint("where that is right, say so behind it: dead-letters %s=1", l.Class))
		}
	}
}

func formatCounts(counts map[string]int) string {
	words := make([]string, 0, len(counts))
	for class, n := range counts {
		words = append(words, fmt.Sprintf("%s=%d", class, n))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

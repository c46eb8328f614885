//go:build !race

package openinference

import (
	"strings"
	"testing"

	"github.com/valyala/fastjson"
)

// What reading a row of 30 numbers may allocate, so that memory for each element shows. Under the race detector pools let go of what they have
// at random.
func TestReadingAllocationBudget(t *testing.T) {
	text := []byte(`{"inputs":[{"name":"inputs","shape":[1,30],"datatype":"FP64","data":[` + strings.Repeat("12.25,", 29) + `1]}]}`)
	var own fastjson.ParserPool
	read := func() {
		if _, p := parseRequest(&own, text, nil); p != nil {
			t.Fatal(p)
		}
	}
	read()
	const most = 12
	if allocations := testing.AllocsPerRun(200, read); allocations > most {
		t.Errorf("%v allocations, the budget is %d", allocations, most)
	}
}

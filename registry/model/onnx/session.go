//go:build onnx

package onnx

import (
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/millrace/millrace/internal/failure"
)

// Built is whether this build scores ONNX.
const Built = true

// Session scores rows with ONNX Runtime. It is safe for concurrent use. What it holds outside of Go's memory is given back when
// nobody has it any more: a version that was retired goes with the last request that it answers.
type Session struct{ *native }

// native is what a session holds. It does not know its Session, which would keep that for ever.
type native struct {
	file    *File
	session *ort.DynamicAdvancedSession
	width   int
	flat    bool       // scores are of rank 1
	idle    chan *call // of one row, to be used again
	closed  atomic.Bool
}

// library loads ONNX Runtime, once in a process, and says how many threads a call has.
var library = sync.OnceValues(func() (threads int, err error) {
	threads = 1
	if text := os.Getenv(ThreadsVariable); text != "" {
		if threads, err = strconv.Atoi(text); err != nil || threads < 1 || threads > MaxThreads {
			return 0, failure.New(failure.BadRequest, ThreadsVariable, "%q is not a number from 1 to %d", text, MaxThreads)
		}
	}
	path := os.Getenv(LibraryVariable)
	if path == "" {
		path = "libonnxruntime.so"
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return 0, failure.Wrap(failure.Refused, path, "loading ONNX Runtime", err).
			WithHint("set %s to the path of its shared library, of version 1.22 or newer: libonnxruntime.so.1.… in the wheel onnxruntime", LibraryVariable)
	}
	return threads, nil
})

// Open makes a session, and sees that the first dimension of what it gives is the rows. Its errors are of kind Refused.
func Open(f *File) (*Session, error) {
	threads, err := library()
	if err != nil {
		return nil, err
	}
	options, err := optionsFor(threads)
	if err != nil {
		return nil, err
	}
	defer func() { _ = options.Destroy() }() // it has no error
	names := make([]string, len(f.Inputs))
	for i, in := range f.Inputs {
		names[i] = in.Name
	}
	session, err := ort.NewDynamicAdvancedSessionWithONNXData(f.content, names, []string{f.Scores}, options)
	if err != nil {
		return nil, failure.Wrap(failure.Refused, "onnx model", "loading it with ONNX Runtime "+ort.GetVersion(), err)
	}
	s := &Session{&native{file: f, session: session, idle: make(chan *call, 2*runtime.GOMAXPROCS(0))}}
	runtime.AddCleanup(s, (*native).close, s.native)
	if err := s.probe(); err != nil {
		return nil, err
	}
	return s, nil
}

func optionsFor(threads int) (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, failure.Wrap(failure.Internal, "onnx", "making session options", err)
	}
	for _, set := range []func() error{
		func() error { return o.SetIntraOpNumThreads(threads) },
		func() error { return o.SetInterOpNumThreads(1) },
		func() error { return o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0") }, // waiting threads sleep
	} {
		if err := set(); err != nil {
			return nil, failure.Wrap(failure.Internal, "onnx", "setting session options", err)
		}
	}
	return o, nil
}

// probe finds the width of the scores: those of one row, and of two, must be of the same.
func (n *native) probe() error {
	for rows := 1; rows <= 2; rows++ {
		c, err := n.call(rows, false)
		if err != nil {
			return err
		}
		shape, err := n.shapeOf(c)
		c.close()
		if err != nil {
			return failure.Wrap(failure.Refused, n.file.Scores, "scoring a row of zeros", err)
		}
		width := int64(1)
		if len(shape) == 2 {
			width = shape[1]
		}
		if len(shape) < 1 || len(shape) > 2 || shape[0] != int64(rows) || width < 1 || width > MaxClasses || rows > 1 && width != int64(n.width) {
			return refused(n.file.Scores, "the scores of %d rows are of shape %v, and not a row of at most %d numbers for each", rows, shape, MaxClasses)
		}
		n.width, n.flat = int(width), len(shape) == 1
	}
	return nil
}

// shapeOf runs a call whose scores the library makes.
func (n *native) shapeOf(c *call) (ort.Shape, error) {
	outputs := []ort.Value{nil}
	if err := n.session.Run(c.inputs, outputs); err != nil {
		return nil, err
	}
	defer func() { _ = outputs[0].Destroy() }() // it has no error
	return slices.Clone(outputs[0].GetShape()), nil
}

// Width is how many numbers a row's scores are.
func (s *Session) Width() int { return s.width }

// Score writes the scores of rows to out, Width of each row. They are NaN for a row with a value that an input's type does not hold.
func (s *Session) Score(rows [][]float64, out []float64) error {
	defer runtime.KeepAlive(s)
	if len(rows) == 1 {
		return s.one(rows, out)
	}
	for len(rows) > 0 {
		part := rows[:min(len(rows), MaxRows)]
		c, err := s.call(len(part), true)
		if err != nil {
			return err
		}
		err = c.score(s.session, part, out)
		c.close()
		if err != nil {
			return err
		}
		rows, out = rows[len(part):], out[len(part)*s.width:]
	}
	return nil
}

// one takes a call that was used before.
func (n *native) one(rows [][]float64, out []float64) (err error) {
	var c *call
	select {
	case c = <-n.idle:
	default:
		if c, err = n.call(1, true); err != nil {
			return err
		}
	}
	err = c.score(n.session, rows, out)
	select {
	case n.idle <- c:
	default:
		c.close()
	}
	return err
}

// close gives back what is held. Nobody may be scoring.
func (n *native) close() {
	for len(n.idle) > 0 {
		(<-n.idle).close()
	}
	_ = n.session.Destroy() // it has no error
	n.closed.Store(true)
}

// call is the memory of one call of the library, for a number of rows.
type call struct {
	lanes   []lane
	inputs  []ort.Value
	outputs []ort.Value
	single  []float32 // the scores, when they are of float
	double  []float64 // else
	width   int       // of a row's scores
	unheld  []int     // rows with a value that an input does not hold
	pins    runtime.Pinner
}

func (n *native) call(rows int, scores bool) (*call, error) {
	c := &call{width: n.width}
	err := n.allocate(c, rows, scores)
	if err != nil {
		c.close()
		return nil, failure.Wrap(failure.Internal, "onnx", "making tensors", err)
	}
	return c, nil
}

func (n *native) allocate(c *call, rows int, scores bool) error {
	column := 0
	for _, in := range n.file.Inputs {
		l, v, err := newLane(c, in, rows, column)
		if err != nil {
			return err
		}
		c.lanes, c.inputs = append(c.lanes, l), append(c.inputs, v)
		column += in.Width
	}
	if !scores {
		return nil
	}
	of := Input{Type: n.file.Type, Width: n.width, Flat: n.flat}
	var v ort.Value
	var err error
	if of.Type == Float {
		c.single, v, err = newTensor[float32](c, of, rows)
	} else {
		c.double, v, err = newTensor[float64](c, of, rows)
	}
	if err == nil {
		c.outputs = []ort.Value{v}
	}
	return err
}

// newTensor makes a tensor whose memory the library keeps pointers to, until the call is closed.
func newTensor[T ort.TensorData](c *call, of Input, rows int) ([]T, ort.Value, error) {
	data := make([]T, rows*of.Width)
	shape := ort.NewShape(int64(rows), int64(of.Width))
	if of.Flat {
		shape = ort.NewShape(int64(rows))
	}
	c.pins.Pin(&data[0])
	t, err := ort.NewTensor(shape, data)
	if err != nil {
		return nil, nil, err
	}
	return data, t, nil
}

func (c *call) score(session *ort.DynamicAdvancedSession, rows [][]float64, out []float64) error {
	c.unheld = c.unheld[:0]
	for _, l := range c.lanes {
		l.take(rows, c)
	}
	if err := session.Run(c.inputs, c.outputs); err != nil {
		return failure.Wrap(failure.Internal, "onnx", "scoring with ONNX Runtime", err)
	}
	copy(out, c.double)
	for i, v := range c.single {
		out[i] = float64(v)
	}
	for _, row := range c.unheld {
		for i := range c.width {
			out[row*c.width+i] = math.NaN()
		}
	}
	return nil
}

func (c *call) close() {
	for _, v := range append(c.inputs, c.outputs...) {
		_ = v.Destroy() // it has no error
	}
	c.pins.Unpin()
}

// lane is the columns of rows that go into one tensor.
type lane interface {
	take(rows [][]float64, c *call)
}

func newLane(c *call, in Input, rows, column int) (lane, ort.Value, error) {
	switch in.Type {
	case Float:
		return makeLane(c, in, rows, column, func(v float64) float32 { return float32(v) })
	case Double:
		return makeLane(c, in, rows, column, func(v float64) float64 { return v })
	case Int32:
		return makeLane(c, in, rows, column, func(v float64) int32 { return int32(v) })
	case Int64:
		return makeLane(c, in, rows, column, func(v float64) int64 { return int64(v) })
	default:
		return makeLane(c, in, rows, column, func(v float64) bool { return v != 0 })
	}
}

type typedLane[T ort.TensorData] struct {
	data   []T
	input  Input
	column int // the first of the row
	as     func(float64) T
}

func makeLane[T ort.TensorData](c *call, in Input, rows, column int, as func(float64) T) (lane, ort.Value, error) {
	data, v, err := newTensor[T](c, in, rows)
	return &typedLane[T]{data, in, column, as}, v, err
}

func (l *typedLane[T]) take(rows [][]float64, c *call) {
	at := 0
	for i, row := range rows {
		for _, v := range row[l.column : l.column+l.input.Width] {
			if !l.input.Type.Holds(v) {
				v = 0
				c.unheld = append(c.unheld, i)
			}
			l.data[at] = l.as(v)
			at++
		}
	}
}

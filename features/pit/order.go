package pit

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"os"
	"slices"

	"github.com/millrace/millrace/features"
)

// JoinInOrder is Join with the rows in the order in which they were added. Where that is not the order of time, the values
// go by way of a file in Config.TempDir.
func (s *Spine) JoinInOrder(ctx context.Context, sources []Source, sink func(*Block) error) error {
	if s.InOrder() {
		return s.Join(ctx, sources, sink)
	}
	f, err := tempFile(s.cfg.TempDir, "millrace-values-")
	if err != nil {
		return err
	}
	defer f.Close()
	o := &reorder{file: f, spine: s}
	if err := s.Join(ctx, sources, o.keep); err != nil {
		return err
	}
	return o.handOut(ctx, sink)
}

// reorder keeps blocks in a file, each sorted by the numbers of its rows, and merges them.
type reorder struct {
	spine  *Spine
	file   *os.File
	end    int64
	blocks []keptBlock
	bytes  []byte
}

type keptBlock struct {
	reader *bufio.Reader
	offset int64
	len    int64
	rows   int   // left
	row    int64 // number of the next one
}

func (o *reorder) keep(b *Block) error {
	order := make([]int, len(b.Rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(b.Rows[i], b.Rows[j]) })
	o.bytes = o.bytes[:0]
	for _, r := range order {
		o.bytes = b.appendRow(o.bytes, r)
	}
	if _, err := o.file.WriteAt(o.bytes, o.end); err != nil {
		return spillFailed(o.file.Name(), err)
	}
	o.blocks = append(o.blocks, keptBlock{offset: o.end, len: int64(len(o.bytes)), rows: len(order)})
	o.end += int64(len(o.bytes))
	return nil
}

// readBuffers is the memory with which all kept blocks are read together.
const readBuffers = 32 << 20

func (o *reorder) handOut(ctx context.Context, sink func(*Block) error) error {
	size := min(max(readBuffers/len(o.blocks), 4096), 1<<18)
	for i := range o.blocks {
		k := &o.blocks[i]
		k.reader = bufio.NewReaderSize(io.NewSectionReader(o.file, k.offset, k.len), size)
		if err := o.step(k); err != nil {
			return err
		}
	}
	out := newBlock(o.spine.lookups)
	for from, n := int64(0), o.spine.Len(); from < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		until := min(from+int64(o.spine.cfg.SliceRows), n)
		out.Rows, out.Times = sized(out.Rows, int(until-from)), sized(out.Times, int(until-from))
		out.resize(int(until - from))
		for i := range o.blocks {
			for k := &o.blocks[i]; k.rows > 0 && k.row < until; {
				out.Rows[k.row-from] = k.row
				if err := out.readRow(k.reader, int(k.row-from)); err != nil {
					return spillFailed(o.file.Name(), err)
				}
				k.rows--
				if err := o.step(k); err != nil {
					return err
				}
			}
		}
		if err := sink(out); err != nil {
			return err
		}
		from = until
	}
	return nil
}

// step reads the number of a block's next row.
func (o *reorder) step(k *keptBlock) error {
	if k.rows == 0 {
		return nil
	}
	row, err := readWord(k.reader)
	if err != nil {
		return spillFailed(o.file.Name(), err)
	}
	k.row = int64(row)
	return nil
}

// appendRow encodes a row: its number, its time, and of each lookup the newest event time, the words, the status, the texts.
func (b *Block) appendRow(to []byte, r int) []byte {
	to = binary.LittleEndian.AppendUint64(to, uint64(b.Rows[r]))
	to = binary.LittleEndian.AppendUint64(to, uint64(b.Times[r]))
	for i := range b.lookups {
		c := &b.lookups[i]
		to = binary.LittleEndian.AppendUint64(to, uint64(c.newest[r]))
		for _, w := range c.words[r*c.stride : (r+1)*c.stride] {
			to = binary.LittleEndian.AppendUint64(to, w)
		}
		to = append(to, byte(c.status[r]))
		for _, text := range c.texted[r*c.texts : (r+1)*c.texts] {
			to = binary.LittleEndian.AppendUint64(to, uint64(len(text)))
			to = append(to, text...)
		}
	}
	return to
}

// readRow decodes into a row what follows a row's number.
func (b *Block) readRow(from *bufio.Reader, r int) error {
	at, err := readWord(from)
	if err != nil {
		return err
	}
	b.Times[r] = int64(at)
	for i := range b.lookups {
		c := &b.lookups[i]
		newest, err := readWord(from)
		if err != nil {
			return err
		}
		c.newest[r] = int64(newest)
		for k := range c.stride {
			if c.words[r*c.stride+k], err = readWord(from); err != nil {
				return err
			}
		}
		status, err := from.ReadByte()
		if err != nil {
			return err
		}
		c.status[r] = features.Status(status)
		for k := range c.texts {
			n, err := readWord(from)
			if err != nil {
				return err
			}
			text := make([]byte, n)
			if _, err := io.ReadFull(from, text); err != nil {
				return err
			}
			c.texted[r*c.texts+k] = string(text)
		}
	}
	return nil
}

func readWord(from *bufio.Reader) (uint64, error) {
	b, err := from.Peek(8)
	if err != nil {
		return 0, err
	}
	word := binary.LittleEndian.Uint64(b)
	_, err = from.Discard(8)
	return word, err
}

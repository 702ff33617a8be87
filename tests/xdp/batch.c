/* Runs many frames through one loaded program, or each through two, in order, by BPF_PROG_TEST_RUN: a system call for
 * each frame and program, and next to nothing between them. batch.py compiles and loads it.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/bpf.h>

#define GROWTH 256 /* bytes that a program may add to a frame: as much as there is before it */

/* What one program did with one frame. */
struct outcome {
	uint32_t action;
	uint32_t length; /* of the frame as it left */
};

/* A program, and where the frames that leave it go, one behind the other. */
struct program {
	int fd;
	uint8_t *out; /* room for every frame and its growth */
	struct outcome *outcomes;
};

static int run_once(struct program *program, const uint8_t *frame, uint32_t length)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = program->fd;
	attr.test.data_in = (uintptr_t)frame;
	attr.test.data_size_in = length;
	attr.test.data_out = (uintptr_t)program->out;
	attr.test.data_size_out = length + GROWTH;
	attr.test.repeat = 1;
	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)))
		return -errno;
	program->out += attr.test.data_size_out;
	*program->outcomes++ = (struct outcome){attr.test.retval, attr.test.data_size_out};
	return 0;
}

/* The frames lie one behind the other. If `dry` has a program (its fd is no negative number), each frame goes through it
 * first; the word at `trace`, that it leaves behind, is kept in `traced`. Returns 0, or -errno of the call that failed. */
int run_frames(struct program live, struct program dry, const volatile uint32_t *trace, uint32_t *traced,
	       const uint8_t *frames, const uint32_t *lengths, long count)
{
	int error = 0;
	long n;

	for (n = 0; n < count && !error; frames += lengths[n++]) {
		if (dry.fd >= 0) {
			error = run_once(&dry, frames, lengths[n]);
			traced[n] = *trace;
		}
		if (!error)
			error = run_once(&live, frames, lengths[n]);
	}
	return error;
}

// The board around the simulated design: its clock, and a UART at bit level on a terminal (a pty that somebody opened).
// The serial line has a speed of its own, in clocks per bit, which need be no whole number and need not be the design's.
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <unistd.h>

#include "Vnn_board.h"
#include "core.h"
#include "design.h"
#include "verilated.h"

static bool core_is_busy;
void core_busy(unsigned char busy) { core_is_busy = busy; }

namespace {

// Bits onto the pin. The line falls at a fraction of a clock, as a line that knows nothing of the clock does.
class Sender {
public:
    explicit Sender(double clocks_per_bit) : clocks_per_bit_(clocks_per_bit) {}
    bool idle() const { return bytes_.empty() && !sending_; }
    void add(unsigned char byte) { bytes_.push_back(byte); }
    bool pin(double now) {
        if (sending_ && now >= start_ + 10 * clocks_per_bit_) {
            sending_ = false;
            start_ += 10 * clocks_per_bit_; // the next byte follows at once: no clock is rounded up between them
        }
        if (!sending_ && !bytes_.empty()) {
            frame_ = 0x200u | static_cast<unsigned>(bytes_.front()) << 1;
            bytes_.pop_front();
            if (now - start_ >= 1)
                start_ = now;
            sending_ = true;
        }
        return !sending_ || (frame_ >> static_cast<unsigned>((now - start_) / clocks_per_bit_) & 1);
    }

private:
    double clocks_per_bit_, start_ = -1e9;
    bool sending_ = false;
    unsigned frame_ = 0;
    std::deque<unsigned char> bytes_;
};

// Bits from the pin, each sampled in its middle by the line's own clock. Says byte and stop bit.
class Receiver {
public:
    explicit Receiver(double clocks_per_bit) : clocks_per_bit_(clocks_per_bit) {}
    bool idle() const { return bit_ < 0; }
    bool take(double now, bool pin, unsigned char &byte, bool &framed) {
        if (bit_ < 0) {
            if (!pin) {
                bit_ = 0;
                bits_ = 0;
                start_ = now;
            }
            return false;
        }
        if (now < start_ + (bit_ + 0.5) * clocks_per_bit_)
            return false;
        bits_ |= static_cast<unsigned>(pin) << bit_;
        if (++bit_ < 10)
            return false;
        bit_ = -1;
        byte = static_cast<unsigned char>(bits_ >> 1);
        framed = (bits_ & 0x201) == 0x200;
        return true;
    }

private:
    double clocks_per_bit_, start_ = 0;
    int bit_ = -1;
    unsigned bits_ = 0;
};

int fail(const char *what) {
    std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
    return 1;
}

} // namespace

// simulation FD [CLOCKS_PER_BIT [+latency=N] [+hangs=N]]: FD is the terminal's master side, inherited.
int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: simulation FD [CLOCKS_PER_BIT]\n");
        return 2;
    }
    const int fd = std::atoi(argv[1]);
    const double clocks_per_bit = argc > 2 ? std::atof(argv[2]) : DESIGN_CLOCKS_PER_BIT;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return fail("the terminal");
    VerilatedContext context;
    context.commandArgs(argc, argv);
    const std::unique_ptr<Vnn_board> board(new Vnn_board(&context));
    board->reset = 0;
    Sender sender(clocks_per_bit);
    Receiver receiver(clocks_per_bit);
    // After that many clocks without a bit on the line and with no core at work nothing moves in the design any more: its
    // longest way without either is through its memories, a byte at a clock.
    const double settled = 64 * clocks_per_bit + 4.0 * (DESIGN_IN_BYTES + DESIGN_OUT_BYTES + DESIGN_MAX_PAYLOAD);
    double busy_until = settled, look_at = 64; // by then the reset after configuration is over
    for (double now = 0;; now += 1) {
        if (now >= look_at) {
            look_at = now + (sender.idle() ? 4 : 20) * clocks_per_bit;
            unsigned char bytes[4096];
            const ssize_t n = read(fd, bytes, sizeof bytes);
            for (ssize_t i = 0; i < n; i++)
                sender.add(bytes[i]);
            if (n == 0 || (n < 0 && errno == EIO))
                return 0; // the other side closed
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                return fail("the terminal");
            if (n > 0)
                busy_until = now + settled;
            if (now >= busy_until) { // stand still rather than burn a processor
                pollfd waiting = {fd, POLLIN, 0};
                (void)poll(&waiting, 1, -1);
                look_at = now;
            }
        }
        board->uart_rx = sender.pin(now);
        board->clk = 0;
        board->eval();
        board->clk = 1;
        board->eval();
        unsigned char byte;
        bool framed;
        if (receiver.take(now, board->uart_tx, byte, framed)) {
            if (!framed) {
                std::fprintf(stderr, "a byte of the design has no start or stop bit\n");
                return 3;
            }
            while (write(fd, &byte, 1) != 1) {
                if (errno != EAGAIN && errno != EINTR)
                    return errno == EIO ? 0 : fail("the terminal");
                pollfd waiting = {fd, POLLOUT, 0}; // the host is slow: time stands still
                (void)poll(&waiting, 1, -1);
            }
        }
        if (!sender.idle() || !receiver.idle() || core_is_busy)
            busy_until = now + settled;
    }
}

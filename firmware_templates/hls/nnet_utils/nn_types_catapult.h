/* Integers and streams of Catapult, by the names that nn_kernels.h uses. */
#ifndef NN_TYPES_H_
#define NN_TYPES_H_

#include <ac_channel.h>
#include "nnet_common.h"
#include "nnet_types.h"

namespace nn {

template <int W> struct wide { /* a signed integer of W bits */
    typedef ac_int<W, true> type;
};

} // namespace nn

/* hls4ml's convolutions ask of every weight whether it is zero by comparing it with 1e-20, which ac_int cannot. */
template <int W, bool S> bool operator>(const ac_int<W, S> &a, double b) { return a.to_double() > b; }
template <int W, bool S> bool operator<(const ac_int<W, S> &a, double b) { return a.to_double() < b; }

#define NN_STREAM(T) ac_channel<T>

#ifndef PRAGMA_DATA_PACK
#define PRAGMA_DATA_PACK(variable)
#endif

#endif

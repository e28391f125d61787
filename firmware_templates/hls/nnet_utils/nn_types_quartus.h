/* Integers and streams of the Intel HLS compiler, by the names that nn_kernels.h uses. */
#ifndef NN_TYPES_H_
#define NN_TYPES_H_

#include "nnet_common.h"
#include "nnet_types.h"

namespace nn {

template <int W> struct wide { /* a signed integer of W bits */
    typedef ac_int<W, true> type;
};

} // namespace nn

#define NN_STREAM(T) stream<T>

#ifndef PRAGMA_DATA_PACK
#define PRAGMA_DATA_PACK(variable)
#endif

#endif
